"""How far the order of float32 sums moves a gradient in one process; a part of ranks.py.

Off-policy AlignDistil with teachers near the policy was suspected of gradients that nearly cancel,
so that two processes differ from one by more than elsewhere. The same run is made in ONE process
with other micro-batches, which only adds the same numbers in another order, and once in float64,
with teachers that are few and more steps of DPO away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

TEACHERS = (10, 30)  # steps of DPO between the policy and its teachers
RUNS = {  # what is run -> (processes, items in a micro-batch, in float64)
    "1 process, micro-batches of 4": (1, 4, False),
    "1 process, micro-batches of 1": (1, 1, False),
    "1 process, micro-batches of 18": (1, 18, False),
    "2 processes, micro-batches of 4": (2, 4, False),
    "1 process, float64": (1, 4, True),
}
FIRST, *OTHERS, TRUTH = RUNS
# Said before the command line starts: every model is loaded in float64.
DOUBLE = """
import sys
from alignzoo.engine.models import load
single = load.load_model
load.load_model = lambda *given, **how: single(*given, **how).double()
from alignzoo.cli import main
sys.exit(main())
"""


def measured(
    stage: Mapping[str, Any],
    teachers: Callable[[int], Mapping[str, str]],
    train: Callable[[str, Mapping[str, Any], int, bool], list[dict[str, float]]],
) -> Iterator[dict[str, Any]]:
    """Rows of the table: losses and gradient norms of every run against those in float64.

    `teachers` maps a number of steps to the roles, `train` a label, a stage, the number of
    processes and whether it is in float64 to what was logged.
    """
    for steps in TEACHERS:
        logs = {}
        for number, (name, (size, micro, double)) in enumerate(RUNS.items()):
            own = {**stage, "roles": dict(teachers(steps))}
            own["train"] = {**stage["train"], "micro_batch_size": micro}
            logs[name] = train(f"rounding-{steps}-{number}", own, size, double)
        for name in (FIRST, *OTHERS):
            yield {
                "teachers": steps,
                "run": name,
                "norm": logs[TRUTH][0][_norm(logs[TRUTH][0])],
                "from_float64": largest(logs[TRUTH], logs[name]),
                "from_first": largest(logs[FIRST], logs[name]),
            }


def largest(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """Largest relative difference of gradient norms over the steps."""
    key = _norm(one[0])
    return max(abs(a[key] - b[key]) / a[key] for a, b in zip(one, other, strict=True))


def _norm(row: Mapping[str, float]) -> str:
    return next(key for key in row if key.startswith("grad_norm"))


def told(rows: list[dict[str, Any]], commit: str) -> list[str]:
    """Lines of the page."""
    lines = [
        "",
        "## What one process differs by from itself",
        "",
        f"`python benchmarks/ranks.py --rounding`, commit {commit}. Off-policy AlignDistil with "
        "teachers of 10 and of 30 steps, over 20 steps; largest relative difference of gradient "
        "norms, from the same run in float64 and from the first line of each block. *Norm* is that "
        "of the first step.",
        "",
        "| teachers' steps | run | norm | from float64 | from the first |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['teachers']} | {row['run']} | {row['norm']:.3g} | {row['from_float64']:.1e} "
        f"| {row['from_first']:.1e} |"
        for row in rows
    ]
    return [*lines, "", *(verdict(rows, steps) for steps in TEACHERS), nearness(rows)]


def verdict(rows: list[dict[str, Any]], steps: int) -> str:
    """Whether two processes differ by more than one does from itself."""
    here = [row for row in rows if row["teachers"] == steps]
    alone = max(row["from_first"] for row in here if row["run"] != OTHERS[-1])
    (two,) = (row["from_first"] for row in here if row["run"] == OTHERS[-1])
    truth = max(row["from_float64"] for row in here if row["run"] != OTHERS[-1])
    within = "within" if two <= 2 * alone else "NOT within"
    return (
        f"- Teachers of {steps} steps: two processes differ from one by {two:.1e}, one process by "
        f"{alone:.1e} from itself with other micro-batches, and by {truth:.1e} from float64: "
        f"two processes are {within} twice what one process differs by from itself."
    )


def nearness(rows: list[dict[str, Any]]) -> str:
    """Whether teachers nearer to the policy make two processes differ more."""
    near, far = (row["from_first"] for row in rows if row["run"] == OTHERS[-1])
    found = "do" if near > 2 * far else "do not"
    return f"- Nearer teachers {found} make two processes differ more: {near:.1e} and {far:.1e}."
