"""Seeds of one recipe as one curve: the mean, and the standard error of the mean as its band.

Runs are seeds of one recipe when their recipes differ in the seed alone (and in what changes no
result: processes, threads, trackers), as those of `alignzoo run --seeds` do.
"""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.contract.errors import UsageError
from alignzoo.contract.evaluation import mean, standard_error
from alignzoo.studies.plots.curves import Curve, Log


def fold(found: Sequence[tuple[Log, Curve]]) -> list[Curve]:
    """One curve per stage of a recipe.

    Raises UsageError when no recipe is there with two seeds, or when a seed is there twice, which
    would make the band too narrow.
    """
    kin: dict[str, list[tuple[Log, Curve]]] = {}
    for log, curve in found:
        kin.setdefault(log.kin, []).append((log, curve))
    if all(len(group) == 1 for group in kin.values()):
        raise UsageError("--bands: no two runs differ in their seed alone; add `--seeds N` to "
                         "`alignzoo run`, or leave out --bands")  # fmt: skip
    return [_mean(group) for group in kin.values()]


def _mean(group: Sequence[tuple[Log, Curve]]) -> Curve:
    runs: dict[int, str] = {}
    for log, curve in group:
        if log.seed in runs:
            both = f"{runs[log.seed]} and {curve.run}"
            raise UsageError(f"seed {log.seed} of one recipe is there twice: {both}; name one")
        runs[log.seed] = curve.run
    tables = [
        {s: (x, y) for s, x, y in zip(c.steps, c.x, c.y, strict=True)} for _, c in group
    ]  # fmt: skip
    steps = [s for s in tables[0] if all(s in table for table in tables)]
    log, first = group[0]
    if not steps:
        raise UsageError(f"the seeds of {first.run}/{first.stage} share no step")
    ys = [[table[s][1] for table in tables] for s in steps]
    return Curve(
        run=str(log.recipe.get("name", first.run)) if len(group) > 1 else first.run,
        stage=first.stage,
        steps=tuple(steps),
        x=tuple(mean([table[s][0] for table in tables]) for s in steps),
        y=tuple(map(mean, ys)),
        spread=tuple(standard_error(y) for y in ys) if len(group) > 1 else (),
        seeds=len(group),
    )
