"""Curves as paths: thinned to what can be seen, with the healthy band behind them.

A drawing stretches to whatever width there is: its paths live on a plane of `ACROSS` by `UP` units,
while its axes are lettered outside of it, in the page's own size of type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from alignzoo.pages.axes import Axis, Scale, axis, spanning

ACROSS, UP = 600, 1000  # units of a drawing's plane
COLUMNS = 300  # of points that are kept; a drawing is rarely more pixels wide
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """What is drawn as one curve. A value that is not finite leaves a gap."""

    name: str
    points: Sequence[Point]
    colour: int = 0  # which of the palette
    marks: Sequence[Point] = ()  # points that are out of order
    dots: Sequence[Point] = ()  # points of their own, in the curve's colour
    spread: Sequence[tuple[float, float, float]] = ()  # x, low, high: an area behind the curve


@dataclass(frozen=True)
class Curve:
    """A series as it is drawn: SVG path data of curve and area, dots (points that stand alone too)
    and marks.
    """

    name: str
    colour: int
    path: str
    dots: tuple[Point, ...]
    marks: tuple[Point, ...]
    area: str = ""


@dataclass(frozen=True)
class Band:
    """Values that count as healthy; None: no limit on this side."""

    low: float | None = None
    high: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value is inside."""
        above = self.low is None or value >= self.low
        return above and (self.high is None or value <= self.high)


@dataclass(frozen=True)
class Chart:
    """Everything the macro `chart` of drawing.html.j2 needs."""

    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    band: tuple[float, float] | None = None  # top and height of the healthy band on the plane
    plane: tuple[int, int] = field(default=(ACROSS, UP))


def chart(
    title: str, x_name: str, y_name: str, series: Sequence[Series], band: Band | None = None
) -> Chart | None:
    """A drawing of all series on common axes; None where nothing finite is to be drawn."""
    whole = [p for one in series for p in one.points if all(map(math.isfinite, p))]
    if not whole:
        return None
    across = spanning([x for x, _ in whole], 0, ACROSS, room=0.01)
    edges = [y for one in series for _, *ends in one.spread for y in ends if math.isfinite(y)]
    up = spanning([*(y for _, y in whole), *edges], UP, 0)
    return Chart(
        title,
        axis(x_name, across),
        axis(y_name, up, about=4),
        tuple(_curve(one, across, up) for one in series),
        _strip(band, up) if band else None,
    )


def _curve(one: Series, across: Scale, up: Scale) -> Curve:
    def place(point: Point) -> tuple[int, int]:
        return round(across(point[0])), round(up(point[1]))

    pieces = [[place(p) for p in piece] for piece in _pieces(one.points)]
    return Curve(
        name=one.name,
        colour=one.colour,
        path="".join(_path(piece) for piece in pieces if len(piece) > 1),
        dots=(*(piece[0] for piece in pieces if len(piece) == 1), *map(place, one.dots)),
        marks=tuple(map(place, one.marks)),
        area=_area([(place((x, low)), place((x, high))) for x, low, high in one.spread]),
    )


def _area(edges: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> str:
    """What lies between the lower and the upper ends, as one closed path."""
    if len(edges) < 2:
        return ""
    return _path([low for low, _ in edges] + [high for _, high in reversed(edges)]) + "z"


def _pieces(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Runs of finite points: a gap is not bridged."""
    for drawn, run in groupby(points, key=lambda p: all(map(math.isfinite, p))):
        if drawn:
            yield list(run)


def thinned(points: Sequence[Point], columns: int = COLUMNS) -> list[Point]:
    """The lowest and the highest point of every column, the first and the last of all, and one
    that is not finite where there are any: no peak and no gap is lost.

    `points` are (x, y) with x ascending and finite; columns are equally wide.
    """
    if len(points) <= 2 * columns:
        return list(points)
    first, last = points[0][0], points[-1][0]
    width = (last - first) / columns or 1.0
    kept = {0, len(points) - 1}
    for _, inside in groupby(range(len(points)), key=lambda n: int((points[n][0] - first) / width)):
        column = list(inside)
        finite = [n for n in column if math.isfinite(points[n][1])]
        kept.update([n for n in column if not math.isfinite(points[n][1])][:1])
        if finite:
            kept |= {
                min(finite, key=lambda n: points[n][1]),
                max(finite, key=lambda n: points[n][1]),
            }
    return [points[n] for n in sorted(kept)]


def _path(points: Sequence[tuple[int, int]]) -> str:
    """Path data with steps instead of places, which are shorter."""
    (x, y), *rest = points
    words = [f"M{x} {y}"] + ["l"] * bool(rest)
    for x_next, y_next in rest:
        dx, dy = x_next - x, y_next - y
        words.append(f"{dx}{' ' if dy >= 0 else ''}{dy} ")
        x, y = x_next, y_next
    return "".join(words).strip()


def _strip(band: Band, up: Scale) -> tuple[float, float] | None:
    """Where the band lies on the plane, as far as it is in sight."""
    top = 0.0 if band.high is None else max(0.0, up(band.high))
    bottom = float(UP) if band.low is None else min(float(UP), up(band.low))
    return (top, bottom - top) if bottom > top else None
