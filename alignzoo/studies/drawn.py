"""The drawings of a result: curves over seeds, and intervals as bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alignzoo.pages import Axis, Chart, Scale, Series, axis, chart, spanning, thinned
from alignzoo.studies import words
from alignzoo.studies.facts import Comparison, Figure, Measure, Picture, Result

AXES = {"step": "step", "flops": "training FLOPs (6 N D)", "kl": "KL [nats]"}


def curves_of(result: Result) -> list[Chart]:
    """A drawing for each picture: means, and their 95 % intervals as areas."""
    found = (_chart(picture) for picture in result.pictures)
    return [one for one in found if one is not None]


def _chart(picture: Picture) -> Chart | None:
    series = []
    for number, line in enumerate(picture.lines):
        kept = {x for x, _ in thinned([(x, y) for x, y, _ in line.points])}
        shown = [point for point in line.points if point[0] in kept]
        ends = [(x, y - half, y + half) for x, y, half in shown if half is not None]
        points = [(x, y) for x, y, _ in shown]
        series.append(Series(line.label, points, colour=number, spread=ends))
    x = AXES.get(picture.x, picture.x)
    return chart(f"{picture.label} over {x}", x, picture.label, series)


@dataclass(frozen=True)
class Rung:
    """A row of a ladder: places in percent of its width."""

    label: str
    control: bool
    at: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class Ladder:
    """A measure of all rows, one below the other: means, intervals, every seed."""

    title: str
    axis: Axis
    rungs: tuple[Rung, ...]


def ladders(result: Result) -> list[Ladder]:
    """A drawing for each measure that a claim speaks of."""
    claimed = {verdict.measure for verdict in result.verdicts if verdict.comparisons}
    drawn = (_ladder(result, one) for one in result.measures if one.name in claimed)
    return [one for one in drawn if one is not None]


def _ladder(result: Result, measure: Measure) -> Ladder | None:
    cells = [(row, result.figure(row.name, measure.name)) for row in result.rows]
    there = [(row, f, f.mean) for row, f in cells if f is not None and f.mean is not None]
    ends = [x for _, f, at in there for x in (*_ends(f, at), at, *_known(f))]
    if not ends:
        return None
    place = spanning(ends, 0, 100)
    rungs = []
    for row, figure, at in there:
        low, high = map(place, _ends(figure, at)) if figure.half is not None else (None, None)
        seeds = tuple(map(place, _known(figure))) if len(figure.seeds) > 1 else ()
        rungs.append(Rung(words.row_label(row), row.control, place(at), low, high, seeds))
    unit = f" [{measure.unit}]" if measure.unit else ""
    every = ", every seed" if any(one.seeds for one in rungs) else ""
    return Ladder(
        f"{measure.label}{unit}: mean, 95 % interval{every}",
        axis(measure.label, place),
        tuple(rungs),
    )


def _ends(figure: Figure, mean: float) -> tuple[float, ...]:
    return () if figure.half is None else (mean - figure.half, mean + figure.half)


def _known(figure: Figure) -> list[float]:
    return [x for x in figure.seeds if x is not None]


@dataclass(frozen=True)
class Bar:
    """A comparison on a line: places in percent of its width."""

    zero: float
    at: float
    low: float | None
    high: float | None
    inside: tuple[float, float] | None  # what is claimed, where it has two ends


def bars(found: Sequence[Comparison]) -> Iterator[Bar | None]:
    """One bar per comparison of a claim, all on one scale; None where there is no estimate."""
    ends = [
        x
        for one in found
        for x in (0.0, one.estimate, one.low, one.high, *_limits(one))
        if x is not None
    ]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    room = 0.06 * ((high - low) or 1.0)
    place = Scale(low - room, high + room)
    for one in found:
        if one.estimate is None:
            yield None
            continue
        limits = [place(x) for x in _limits(one)]
        yield Bar(
            zero=place(0.0),
            at=place(one.estimate),
            low=None if one.low is None else place(one.low),
            high=None if one.high is None else place(one.high),
            inside=(limits[0], limits[1]) if limits else None,
        )


def _limits(one: Comparison) -> tuple[float, ...]:
    low, high = one.inside
    return (low, high) if low is not None and high is not None else ()
