"""Columns of a benchmark: are they sound, and what a leaderboard stores of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from alignzoo.contract.errors import PluginError
from alignzoo.contract.evaluation import Column, Estimate, honest, interval

Values = Sequence[float | None]


def check_columns(name: str, columns: Mapping[str, Column], n_prompts: int) -> None:
    """Raise PluginError when a column does not have one finite value, or None, per prompt."""
    for column, content in columns.items():
        if not all(x is None or math.isfinite(x) for x in content.values):
            raise PluginError(f"benchmark '{name}': column '{column}' has values not finite")
        if len(content.values) != n_prompts:
            raise PluginError(
                f"benchmark '{name}': column '{column}' has {len(content.values)} values for "
                f"{n_prompts} prompts; there must be one value per prompt"
            )


def summarise(column: Column, baseline: Values | None) -> dict[str, Any]:
    """The figure with its 95 % interval, and the paired difference to the baseline's.

    Prompts without a value are left out. An estimate that is no number is null, never 0. `alike` is
    the number of prompts where all have the same value, so that there is no interval.
    """
    shown: dict[str, Any] = {"better": column.better, "doc": column.doc}
    shown |= {"note": column.note} if column.note else {}
    shown |= {"whole": column.whole} if column.whole else {}
    present = [x for x in column.values if x is not None]
    if column.estimate is not None:
        return _estimated(column.estimate, len(present), column.whole) | shown
    cell = _interval(present, column.whole) if present else dict(_NOTHING)
    pairs = zip(column.values, baseline or (), strict=False)
    differences = [x - y for x, y in pairs if x is not None and y is not None]
    if not differences:
        return cell | shown
    centre, low, high = interval(differences)
    return cell | shown | {"diff_mean": centre, "diff_low": low, "diff_high": high}


_NOTHING: Mapping[str, Any] = {"mean": None, "low": None, "high": None}


def _interval(present: Sequence[float], whole: float | None) -> dict[str, Any]:
    centre, low, high = interval(present, whole)
    cell: dict[str, Any] = {"mean": centre, "low": low, "high": high}
    return cell | ({"alike": len(present)} if low is None else {})


def _estimated(found: Estimate, n: int, whole: float | None) -> dict[str, Any]:
    """The benchmark's own figure. A standard error of 0 is as little certainty as a point."""
    low, high = honest(found.value, found.low, found.high, n, whole)
    cell = {"mean": found.value, "low": low, "high": high, "error": found.error or None}
    known = {key: _number(x) for key, x in cell.items()}
    return known | ({"alike": n} if low is None else {})


def _number(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None
