"""Columns of a benchmark: are they sound, and what a leaderboard stores of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from alignzoo.contract.errors import PluginError
from alignzoo.contract.evaluation import Column, interval

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

    Prompts without a value are left out. An estimate that is no number is null, never 0.
    """
    shown: dict[str, Any] = {"better": column.better, "doc": column.doc}
    shown |= {"note": column.note} if column.note else {}
    if column.estimate is not None:
        found = column.estimate
        cell = {"mean": found.value, "low": found.low, "high": found.high, "error": found.error}
        return {key: _number(x) for key, x in cell.items()} | shown
    present = [x for x in column.values if x is not None]
    cell = dict(zip(("mean", "low", "high"), interval(present), strict=True)) if present else {}
    entry: dict[str, Any] = {"mean": None, "low": None, "high": None} | cell | shown
    pairs = zip(column.values, baseline or (), strict=False)
    differences = [x - y for x, y in pairs if x is not None and y is not None]
    if not differences:
        return entry
    centre, low, high = interval(differences)
    return entry | {"diff_mean": centre, "diff_low": low, "diff_high": high}


def _number(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None
