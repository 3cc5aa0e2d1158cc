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


def summarise(
    column: Column, baseline: Values | None, *, by_definition: bool = False
) -> dict[str, Any]:
    """The figure with its 95 % interval, and the paired difference to the baseline's.

    Prompts without a value are left out. An estimate that is no number is null, never 0. `alike` is
    the number of prompts where all have the same value, so that there is no interval; what is so
    `by_definition`, a baseline's share against itself, is known exactly.
    """
    shown: dict[str, Any] = {"better": column.better, "doc": column.doc}
    shown |= {"note": column.note} if column.note else {}
    shown |= {"whole": column.whole} if column.whole else {}
    present = [x for x in column.values if x is not None]
    found = column.estimate or (Estimate(*interval(present)) if present else None)
    if found is None:
        return {"mean": None, "low": None, "high": None} | shown
    cell = _figure(found, len(present), column.whole, by_definition) | shown
    if column.estimate is not None:
        return cell
    pairs = zip(column.values, baseline or (), strict=False)
    differences = [x - y for x, y in pairs if x is not None and y is not None]
    if not differences:
        return cell
    centre, below, above = interval(differences)
    low, high = honest(centre, below, above, len(differences))
    return cell | {"diff_mean": centre, "diff_low": low, "diff_high": high}


def _figure(found: Estimate, n: int, whole: float | None, exact: bool) -> dict[str, Any]:
    """The figure as it is stored; a standard error of 0 is as little certainty as a point."""
    ends = honest(found.value, found.low, found.high, n, whole)
    low, high = (found.low, found.high) if exact else ends
    cell = {"mean": found.value, "low": low, "high": high, "error": found.error or None}
    known = {key: _number(x) for key, x in cell.items()}
    return known | ({"alike": n} if low is None else {})


def _number(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None
