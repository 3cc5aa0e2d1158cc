"""Which model families of transformers the product trains, samples from and saves exactly.

    python benchmarks/families.py

One tiny random model per family (2-4 layers, hidden size 64, 512 tokens, windows of 16) goes
through a recipe: DPO against another reference with validation, GRPO on its own samples, greedy
answers, a reward model. Every number is compared with plain transformers on single unpadded rows:
see tests/helpers/family_checks.py for how, tests/helpers/family_models.py for the models.

Writes families.md beside this file. About three minutes of one core.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".md")
BAR = 56  # families that must be right
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from family_checks import LIMITS, Outcome, try_family  # noqa: E402
from family_models import FAMILIES, Family  # noqa: E402

HEAD = """# Families of transformers

    python benchmarks/families.py

{versions}; commit {commit}; one core of {machine}.

{right} of {n} families are right in every column that exists for them, {refused} are refused with
one sentence, {wrong} are neither, {missing} are not in this version of transformers.

| column | is | right |
|---|---|---|
| loss | DPO loss of step 1 off plain `log_softmax` of single unpadded rows | <= {loss:g} |
| gap | log p of sampled tokens, engine off scorer, mean nats a token | <= {gap:g} |
| samples | log p of a sampled token off an uncached forward of its row, largest | <= {samples:g} |
| export | DPO loss after the step off plain transformers on the saved folder | <= {export:g} |
| scalar | reward-model loss off plain transformers on single unpadded rows | <= {scalar:g} |

Saved folders hold the tensors of the checkpoint under their names; towers beside the language model
keep their bytes. A dash means that transformers has no scalar head for the family.

| family | loss | gap | samples | export | scalar | |
|---|---|---|---|---|---|---|
"""


def outcomes(families: Sequence[Family]) -> Iterator[Outcome]:
    """One after the other, said as they come."""
    for family in families:
        with tempfile.TemporaryDirectory() as folder:
            outcome = try_family(family, Path(folder))
        print(line(outcome), flush=True)
        yield outcome


def line(outcome: Outcome) -> str:
    """A row of the table."""
    numbers = [getattr(outcome, name) for name in LIMITS]
    cells = ["-" if x is None else f"{x:.0e}" for x in numbers]
    return f"| {outcome.family} | {' | '.join(cells)} | {verdict(outcome)} |"


def verdict(outcome: Outcome) -> str:
    """The last cell: right, or what happened, without the folder's name."""
    if outcome.right:
        return "right"
    if outcome.refused:
        return f"refused: {outcome.refused.split(': ', 1)[-1]}"
    return f"**wrong** {outcome.error or outcome.tensors}".strip()


def commit() -> str:
    """Of this checkout, marked when it holds changes."""
    words = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def report(done: Sequence[Outcome], missing: Sequence[Family]) -> str:
    """The page."""
    right, refused = sum(o.right for o in done), sum(bool(o.refused) for o in done)
    names = ("transformers", "torch", "alignzoo")
    head = HEAD.format(
        versions=", ".join(f"{name} {version(name)}" for name in names),
        commit=commit(),
        machine=f"{platform.system()} {platform.machine()}",
        right=right,
        n=len(done) + len(missing),
        refused=refused,
        wrong=len(done) - right - refused,
        missing=len(missing),
        **LIMITS,
    )
    skipped = [f"| {f.name} | - | - | - | - | - | not in this version |" for f in missing]
    return head + "\n".join([*map(line, done), *skipped]) + "\n"


def main() -> int:
    """Status 1 when a family is neither right nor refused, or too few are right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", help="only these, and no page")
    names = parser.parse_args().families
    chosen = [f for f in FAMILIES if not names or f.name in names]
    done = list(outcomes([f for f in chosen if f.known]))
    right, refused = sum(o.right for o in done), sum(bool(o.refused) for o in done)
    if not names:
        TABLE.write_text(report(done, [f for f in chosen if not f.known]), encoding="utf-8")
    enough = right >= BAR or bool(names)
    return 0 if enough and right + refused == len(done) else 1


if __name__ == "__main__":
    sys.exit(main())
