"""How much of a training step is neither forward, backward nor update, on the embedded model.

    python benchmarks/overhead.py [--only sft dpo grpo] [--json]

The embedded model has 0.34 M parameters, so that whatever is done once per step or per row shows:
on larger ones the share is smaller. 64 items a step in micro-batches of 32, one thread, a process
each; `timing.jsonl` says in which phase CPU seconds went, the first step left out. `NAME_overhead`
is the share of making batches (data) and of all that has no phase (rest): losses, metrics, logs,
checks, `prepare`. Sampling and rewards are neither work of a step nor overhead, and are left out.
About three minutes of one core.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from measured import Bar, parser, progress, show, spent

LEARNING = ("snapshots", "forward", "backward", "optimiser")
OVERHEAD = ("data", "rest")
ROLLOUT = {
    "prompts": 16,
    "samples_per_prompt": 4,
    "sampling": {"max_new_tokens": 32},
    "reward": {"judge": "facts.oracle"},
}
STAGES: dict[str, dict[str, Any]] = {
    "sft": {"data": {"name": "facts.sft"}},
    "dpo": {"data": {"name": "pairs.jsonl"}},
    "grpo": {"data": {"name": "facts.prompts"}, "rollout": ROLLOUT},
}
BARS = {f"{name}_overhead": Bar(0.035, 0.02) for name in STAGES}


def write_pairs(file: Path, count: int) -> None:
    """Answers of the world's writers, the next one's as the rejected."""
    from alignzoo_facts.data import Written

    every = list(Written(size=count + 1).samples(0))
    with file.open("w", encoding="utf-8") as out:
        for one, other in pairwise(every):
            row = {"prompt": [dict(message) for message in one.prompt]}
            row |= {"chosen": one.response.text, "rejected": other.response.text}
            out.write(json.dumps(row) + "\n")


def phases(name: str, folder: Path, steps: int) -> dict[str, float]:
    """CPU seconds of each phase in all steps but the first."""
    items = 64 if steps > 4 else 8
    train = {"steps": steps, "batch_size": items, "micro_batch_size": items // 2, "lr": 1e-3}
    stage = {"name": name, "algorithm": name, "train": train, "log_samples": False}
    recipe = {"name": name, "model": "facts", "seed": 0, "threads": 1}
    recipe |= {"stages": [stage | STAGES[name]]}
    (folder / f"{name}.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "alignzoo", "run", f"{name}.yaml", "--output", name]
    spent(command, folder, {"ALIGNZOO_CACHE": str(folder / "cache")})
    log = next((folder / name / "stages").glob("*/timing.jsonl"))
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row.get("step", 1) > 1]
    known = {phase for row in rows for phase in row["cpu_phases"]}
    return {p: sum(row["cpu_phases"].get(p, 0.0) for row in rows) for p in known}


def main() -> None:
    """Measure and show."""
    own = parser(__doc__)
    own.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES), metavar="NAME")
    asked = own.parse_args()
    rows, figures, steps = [], {}, 3 if asked.small else 40
    with tempfile.TemporaryDirectory() as folder:
        if "dpo" in asked.only:
            write_pairs(Path(folder) / "pairs.jsonl", 16 if asked.small else 512)
        for name in asked.only:
            found = phases(name, Path(folder), steps)
            work, more = (sum(found.get(p, 0.0) for p in some) for some in (LEARNING, OVERHEAD))
            ms = {f"{p} ms": 1e3 * found.get(p, 0.0) / (steps - 1) for p in LEARNING + OVERHEAD}
            rows.append({"method": name, **ms})
            figures[f"{name}_overhead"] = more / (work + more)
            progress(f"{name}: {found}")
    show(asked, rows, figures, BARS)


if __name__ == "__main__":
    main()
