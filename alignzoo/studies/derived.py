"""Measures that are made of a logged metric, and curves of it over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from alignzoo.contract.errors import UsageError
from alignzoo.contract.evaluation import mean
from alignzoo.studies.intervals import over_seeds
from alignzoo.studies.plots.curves import Curve, curves, read_logs
from alignzoo.studies.readings import Reading
from alignzoo.studies.spec import DerivedSpec

STEP, FLOPS = "step", "flops"


def read_curve(run: Path, stage: str, x: str, metric: str) -> Curve | str:
    """A metric that a stage logged, or a sentence that says why there is none."""
    try:
        ((_, curve),) = curves(read_logs([f"{run}/{stage}"]), x, metric)
    except UsageError as error:
        return str(error).removeprefix("--y ").removeprefix("--x ").partition("; there are ")[0]
    return curve


def read_derived(
    run: Path, stage: str, spec: DerivedSpec, level: Curve | str | None
) -> Reading | str:
    """A measure of a training stage, or a sentence that says why there is none.

    `level` is the curve of the row whose last quarter is to be reached, where there is one.
    """
    x = FLOPS if spec.fold in ("flops", "flops_to") else STEP
    whole = spec.fold in ("steps", "flops")
    curve = _finite(read_curve(run, stage, x, "loss" if whole else spec.metric))
    if isinstance(curve, str):
        return curve
    if whole:
        return Reading(curve.x[-1])
    if spec.of is None:
        return Reading(mean(curve.y) if spec.fold == "mean" else last_quarter(curve.y))
    if isinstance(level := _finite(level), str):
        return f"{spec.of} has no level of {spec.metric} to be reached: {level}"
    return reached(curve, spec.share * last_quarter(level.y), spec.window)


def _finite(curve: Curve | str | None) -> Curve | str:
    """The curve; why there is none where a value of it is not finite."""
    if not isinstance(curve, Curve):
        return curve or "it has none"
    bad = sum(1 for y in curve.y if not math.isfinite(y))
    return f"NaN or infinite at {bad} of {len(curve.y)} steps" if bad else curve


def last_quarter(values: Sequence[float]) -> float:
    """The mean of the last quarter of what was logged, rounded up."""
    return mean(values[-math.ceil(len(values) / 4) :])


def reached(curve: Curve, level: float, window: int) -> Reading:
    """Where the mean of the last `window` points is first at least the level; fewer points than
    that are not asked, unless there are no more.

    A curve that never is counts as its end, and the reading says so.
    """
    window = min(window, len(curve.y))
    for n in range(window - 1, len(curve.y)):
        if mean(curve.y[n + 1 - window : n + 1]) >= level:
            return Reading(curve.x[n])
    return Reading(curve.x[-1], note=f"it never reached {level:.4g} and counts as its end")


def folded(found: Sequence[Curve]) -> tuple[tuple[float, float, float | None], ...]:
    """(x, mean, half of the 95 % interval) at every step that all seeds have; a value that is not
    finite in some seed leaves its step out.
    """
    tables = [dict(zip(c.steps, zip(c.x, c.y, strict=True), strict=True)) for c in found]
    points = []
    for step in tables[0] if tables else ():
        here = [table[step] for table in tables if step in table]
        if len(here) == len(tables) and all(math.isfinite(y) for _, y in here):
            spread = over_seeds([y for _, y in here])
            points.append((mean([x for x, _ in here]), spread.mean, spread.half))
    return tuple(points)
