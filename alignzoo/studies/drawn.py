"""The drawings of a result: curves over seeds, and intervals as bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alignzoo.pages import Chart, Scale, Series, chart, thinned
from alignzoo.studies.facts import Comparison, Picture, Result

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
