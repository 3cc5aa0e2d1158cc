"""Where results come from: the folders of runs, and bundles that others sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import DataError, UsageError
from alignzoo.leaderboard.bundle import read_bundle
from alignzoo.leaderboard.fold import Section, fold, readable, typed

ENDS = ("mean", "low", "high")
Named = tuple[str, Mapping[str, Any]]  # run, row of scores.jsonl


def read_leaderboard(places: Iterable[Path]) -> list[Section]:
    """The sections of the results of runs (folders) and bundles (files).

    Raises UsageError for a folder without results, and DataError for a damaged file or for two
    that contradict each other.
    """
    return _sections(
        [(p, _bundled(p) if p.is_file() else _run(p, p.resolve().name)) for p in places]
    )


def sections_of(runs: Mapping[str, Path]) -> list[Section]:
    """The sections of runs by a name for each; raises as `read_leaderboard` does."""
    return _sections([(folder, _run(folder, name)) for name, folder in runs.items()])


def _sections(found: Sequence[tuple[Path, list[Named]]]) -> list[Section]:
    _check_agreement(found)
    return [typed(section) for section in fold(row for _, rows in found for row in rows)]


def _bundled(file: Path) -> list[Named]:
    bundle = read_bundle(file)
    return [(bundle.run, row) for row in bundle.scores]


def _run(folder: Path, name: str) -> list[Named]:
    file = folder / "scores.jsonl"
    if not file.exists():
        raise UsageError(f"{folder}: no scores.jsonl; name the folder of a run that has evaluated")
    with readable(file):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for section in fold([("", row) for row in rows]):
            typed(section)
    if not rows:
        raise DataError(f"{file}: has no results; run the recipe again to rewrite it")
    return [(name, row) for row in rows]


def _check_agreement(found: Iterable[tuple[Path, list[Named]]]) -> None:
    """In one table a column ranks in one direction, and equal answers have equal figures."""
    first: dict[tuple[str, ...], tuple[Path, Any]] = {}
    for place, rows in found:
        for _, row in rows:
            for key, said in _said(row):
                other, earlier = first.setdefault(key, (place, said))
                if earlier != said:
                    raise DataError(
                        f"{other} and {place} contradict each other about {' of '.join(key[1:])}, "
                        "so they do not share a table; leave one out"
                    )


def _said(row: Mapping[str, Any]) -> Iterable[tuple[tuple[str, ...], Any]]:
    """What every source must say alike: (section, what it is about) -> what is said."""
    section, columns = str(row["section"]), row["columns"]
    for name, cell in columns.items():
        yield (section, f"column {name}"), (cell["better"], cell.get("whole"))
    figures = {name: [_rounded(cell[key]) for key in ENDS] for name, cell in columns.items()}
    yield (section, "the figures", str(row["model"]), str(row["result"])[:12]), figures


def _rounded(x: float | None) -> str:
    """Other machines add in another order."""
    return "" if x is None else f"{x:.9g}"
