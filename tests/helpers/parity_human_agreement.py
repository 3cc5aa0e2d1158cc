"""Judge quality against the official program's numbers, on pairs that three people judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from alignzoo.judging.quality.crossannotations import read_pairs
from alignzoo.judging.quality.figures import (
    PEOPLE_SECONDS,
    HumanPair,
    Labels,
    Quality,
    human_quality,
    longest,
    quality,
)

FOLDER = "human_agreement"
TOLERANCE = 1e-6


def check(folder: Path, expected: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """Compare every number of the section; the key paths (section, row, column) found equal."""
    checked: set[tuple[str, ...]] = set()
    (annotations,) = sorted((folder / FOLDER).glob("*crossannotations.json*"))
    pairs = read_pairs(annotations)
    found = {"humans": human_quality(pairs), "longest": quality(pairs, longest(pairs))}
    for path in sorted((folder / FOLDER).glob("judge_*.jsonl")):
        name = path.stem.removeprefix("judge_")
        found[name] = quality(pairs, recorded(path, pairs))
    for name in expected.keys() & found.keys():
        columns = by_title(found[name])
        for title in expected[name].keys() & columns.keys():
            assert close(columns[title], expected[name][title]), (
                f"human_agreement.{name}.{title}: {columns[title]}, not {expected[name][title]}"
            )
            checked.add((FOLDER, name, title))
    return checked


def recorded(path: Path, pairs: tuple[HumanPair, ...]) -> Labels:
    """Verdicts on record; the official row took the people's time for the judge's, and no price."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    said = {row["idx"]: row["preference"] for row in rows}
    labels = {pair.key: (said[i],) for i, pair in enumerate(pairs) if said[i] is not None}
    return Labels(labels, price=0.0, seconds=PEOPLE_SECONDS)


def by_title(row: Quality) -> dict[str, Any]:
    """The columns under the official program's names."""
    return {f.metadata["title"]: getattr(row, f.name) for f in fields(row)}


def close(found: float | None, wanted: float | None) -> bool:
    """Whether two numbers are the same, or both are missing."""
    if found is None or wanted is None:
        return found is wanted
    return abs(found - wanted) <= TOLERANCE
