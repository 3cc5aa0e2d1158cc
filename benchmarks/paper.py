"""All results of `alignzoo reproduce` that are committed, as one page: paper.md.

    python benchmarks/paper.py

Reads results/reproduce/*.json, in the order of the paper; writes paper.md beside this file.
"""

from __future__ import annotations

from pathlib import Path

from alignzoo.studies.facts import Result
from alignzoo.studies.files import read_result
from alignzoo.studies.paper import paper

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "reproduce"
ORDER = ("table1", "table2", "table3", "figure2", "table4", "questions", "controls")
WORLDS = ("facts", "stories")


def place(result: Result) -> tuple[int, str, int, str]:
    """Where a result stands on the page."""
    first = ORDER.index(result.study) if result.study in ORDER else len(ORDER)
    world = result.world.partition("-")[0]
    second = WORLDS.index(world) if world in WORLDS else len(WORLDS)
    return first, result.study, second, result.world


def page() -> str:
    """The page of what is committed."""
    return paper(sorted(map(read_result, RESULTS.glob("*.json")), key=place))


if __name__ == "__main__":
    (HERE / "paper.md").write_text(page(), encoding="utf-8")
    print(HERE / "paper.md")
