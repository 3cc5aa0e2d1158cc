"""How the cost of training grows: CPU seconds against one size at a time, and a straight line.

    python benchmarks/scaling.py [--only length vocabulary batch pairs prompts] [--json]

Llama with H = 64 and 2 layers, one thread, a process for each size, in turns. DPO steps on pairs
against the length of an answer, the size of the vocabulary and the pairs of a step; a whole DPO
stage, the reference pass included, against the pairs of its data; GRPO steps against the prompts
that are sampled for, four answers of 16 tokens each. `NAME_fit` is R^2 of the straight line: what
grows faster or slower than its size is below 1. About four minutes of one core.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from measured import Bar, Line, Spent, in_turns, middle, parser, progress, show, spent

CASE = Path(__file__).with_name("scaling_case.py")
USUAL = {"length": 64, "vocabulary": 4096, "batch": 8, "pairs": 16, "prompts": 2}
SIZES = {
    "length": (64, 128, 192, 256),
    "vocabulary": (4096, 16_384, 28_672, 40_960),
    "batch": (8, 16, 24, 32),
    "pairs": (32, 64, 96, 128),
    "prompts": (4, 8, 12, 16),
}
SMALL = {axis: tuple(n * k for k in (1, 2, 3)) for axis, n in USUAL.items()}
BARS = {f"{axis}_fit": Bar(0.95, 0.99, at_most=False) for axis in SIZES}


def measured(axis: str, size: dict[str, int]) -> Spent:
    """In a process of its own."""
    found = spent([sys.executable, "-P", CASE, axis, json.dumps(size)])
    return Spent(found.said["cpu"], found.peak)


def main() -> None:
    """Measure, fit, show."""
    own = parser(__doc__)
    own.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES), metavar="AXIS")
    asked = own.parse_args()
    rows, figures = [], {}
    for axis in asked.only:
        sizes = (SMALL if asked.small else SIZES)[axis]
        works = {n: partial(measured, axis, USUAL | {axis: n}) for n in sizes}
        found = {n: middle(some) for n, some in in_turns(works, asked.rounds).items()}
        line = Line.through(list(found), [x.cpu for x in found.values()])
        figures |= {f"{axis}_slope": line.slope, f"{axis}_fit": line.fit}
        rows += [
            {"axis": axis, "size": n, "CPU s": x.cpu, "line": line.start + line.slope * n}
            for n, x in found.items()
        ]
        progress(f"{axis}: {line}")
    show(asked, rows, figures, BARS)


if __name__ == "__main__":
    main()
