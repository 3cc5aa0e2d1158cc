"""Logged metrics as curves: thinned, with what leaves the healthy range; and reward against KL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from alignzoo.contract.algorithm import Metric
from alignzoo.contract.evaluation import mean
from alignzoo.engine.train.rails import SLACK, WINDOW
from alignzoo.pages import COLUMNS, thinned
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.registry import Registry
from alignzoo.report.facts import Crossing, CurveFacts, MetricCurves, MetricFacts, Point, Trail
from alignzoo.report.glossary import meaning
from alignzoo.report.runs import Run

MOST = 200_000  # points on a page
FEWEST = 60  # columns of a curve, however many curves there are
CORNERS = 16  # points of a trail
Rows = Sequence[Mapping[str, float]]


def stages_of(runs: Sequence[Run]) -> list[str]:
    """The train stages of all runs, in their recipes' order."""
    return list(dict.fromkeys(name for run in runs for name, log in run.logs.items() if log.rows))


def spec_of(run: Run, stage: str) -> TrainSpec | None:
    """A train stage's block."""
    every = run.recipe.stages if run.recipe else ()
    return next((s for s in every if s.name == stage and isinstance(s, TrainSpec)), None)


def declared_by(spec: TrainSpec | None, registry: Registry) -> Mapping[str, Metric]:
    """What the method of a stage says of its metrics; nothing where it is not installed."""
    cls = registry.algorithms.get(spec.algorithm) if spec else None
    return cls.metrics if cls else {}


def metrics_of(runs: Sequence[Run], registry: Registry) -> Iterator[MetricCurves]:
    """Every metric of every stage, the methods' own first."""
    every = [
        (stage, fact, [run for run in runs if stage in run.logs])
        for stage in stages_of(runs)
        for fact in _facts(stage, runs, registry)
    ]
    series = sum(len(having) for _, _, having in every)
    columns = max(FEWEST, min(COLUMNS, MOST // (2 * max(1, series))))
    for stage, fact, having in every:
        curves = [c for run in having if (c := _curve(run, stage, fact, columns))]
        if curves:
            yield MetricCurves(stage, fact, tuple(curves))


def _facts(stage: str, runs: Sequence[Run], registry: Registry) -> list[MetricFacts]:
    """The metrics that some run logged in a stage."""
    having = [run for run in runs if stage in run.logs]
    found: dict[str, MetricFacts] = {}
    for run in having:
        spec = spec_of(run, stage)
        declared = declared_by(spec, registry)
        logged = dict.fromkeys(chain.from_iterable(run.logs[stage].rows))
        for name in (*(n for n in declared if n in logged), *logged):
            if name != "step":
                found.setdefault(name, meaning(name, declared, spec))
    return sorted(found.values(), key=lambda fact: not fact.declared)


def _curve(run: Run, stage: str, fact: MetricFacts, columns: int) -> CurveFacts | None:
    rows = run.logs[stage].rows
    points = [(row["step"], row[fact.name]) for row in rows if fact.name in row]
    if not points:
        return None
    crossings = tuple(_crossings(points, fact))
    kept = tuple(thinned(points, columns))
    return CurveFacts(run.name, kept, len(points), points[-1][1], crossings)


def _crossings(points: Sequence[Point], fact: MetricFacts) -> Iterator[Crossing]:
    """Where the mean over ten steps leaves the healthy range, as the rails look at it."""
    was_healthy = True
    for n in range(WINDOW, len(points) + 1):
        window = mean([y for _, y in points[n - WINDOW : n]])
        healthy = (fact.low is None or window >= fact.low - SLACK) and (
            fact.high is None or window <= fact.high + SLACK
        )
        if was_healthy and not healthy:
            yield Crossing(points[n - 1][0], window)
        was_healthy = healthy


def trails_of(runs: Sequence[Run]) -> Iterator[Trail]:
    """Reward against KL, wherever a stage logged both."""
    for stage in stages_of(runs):
        for run in runs:
            rows = run.logs[stage].rows if stage in run.logs else ()
            names = list(dict.fromkeys(chain.from_iterable(rows)))
            kl = _first(names, "kl_full/", "kl")
            reward = _first(names, "rollout/reward", "reward", "rewards/margin")
            if kl and reward:
                both = [(row[kl], row[reward]) for row in rows if kl in row and reward in row]
                yield Trail(run.name, stage, kl, reward, tuple(_means(both)))


def _first(names: Sequence[str], *beginnings: str) -> str | None:
    """The first name with the first beginning that any has."""
    found = (n for begin in beginnings for n in names if n.startswith(begin))
    return next(found, None)


def _means(points: Sequence[Point]) -> Iterator[Point]:
    """Means of neighbouring points, so that so many are left at most."""
    size = -(-len(points) // CORNERS)
    for start in range(0, len(points), size or 1):
        some = points[start : start + size]
        yield mean([x for x, _ in some]), mean([y for _, y in some])
