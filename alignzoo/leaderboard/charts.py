"""Geometry of the page's drawings: intervals as bars, length against the leading column."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

WIDTH, HEIGHT = 720, 360  # of the scatter plot, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 14, 44  # margins; on the right there is room for a name
LETTER, LINE = 6.8, 14  # size of a label's letter and of its line
DOT = 5  # half the size of a point


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] to [start, end]."""

    low: float
    high: float
    start: float = 0.0
    end: float = 100.0

    def __call__(self, x: float) -> float:
        """The place of a value, to a hundredth."""
        share = (x - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 2)


def spanning(values: Sequence[float], start: float, end: float, room: float = 0.06) -> Scale:
    """A scale over all values with some room at both ends."""
    low, high = min(values), max(values)
    margin = room * ((high - low) or abs(high) or 1.0)
    return Scale(low - margin, high + margin, start, end)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers in [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


@dataclass(frozen=True)
class Point:
    """A model in the scatter plot: its length, its figure and the figure's interval."""

    name: str
    x: float
    y: float
    low: float
    high: float
    is_baseline: bool = False


@dataclass(frozen=True)
class Mark:
    """A point as it is drawn; its name stands at (label_x, label_y)."""

    point: Point
    x: float
    y: float
    y_low: float
    y_high: float
    label_x: float
    label_y: float


@dataclass(frozen=True)
class Scatter:
    """Everything a template needs to draw the plot."""

    x_name: str
    y_name: str
    marks: tuple[Mark, ...]
    x_ticks: tuple[tuple[float, str], ...]  # place, number
    y_ticks: tuple[tuple[float, str], ...]


def scatter(points: Sequence[Point], x_name: str, y_name: str) -> Scatter:
    """Place points, their intervals, ticks, and names that cover neither points nor each other."""
    across = spanning([p.x for p in points], LEFT, WIDTH - RIGHT)
    up = spanning([y for p in points for y in (p.low, p.y, p.high)], HEIGHT - BOTTOM, TOP)
    taken = [_dot(across(p.x), up(p.y)) for p in points]
    marks = []
    for p in sorted(points, key=lambda p: -p.y):
        x, y = across(p.x), up(p.y)
        box = _free(_boxes(p.name, x, y), taken)
        taken.append(box)
        marks.append(Mark(p, x, y, up(p.low), up(p.high), box.left, box.top + LINE / 2))
    return Scatter(
        x_name,
        y_name,
        tuple(marks),
        tuple((across(t), f"{t:g}") for t in ticks(across.low, across.high)),
        tuple((up(t), f"{t:g}") for t in ticks(up.low, up.high)),
    )


@dataclass(frozen=True)
class Box:
    """A rectangle that something covers."""

    left: float
    top: float
    width: float
    height: float = LINE

    def covers(self, other: Box) -> bool:
        """Whether two rectangles share a point."""
        aside = self.left + self.width <= other.left or other.left + other.width <= self.left
        apart = self.top + self.height <= other.top or other.top + other.height <= self.top
        return not (aside or apart)


def _dot(x: float, y: float) -> Box:
    return Box(x - DOT, y - DOT, 2 * DOT, 2 * DOT)


def _boxes(name: str, x: float, y: float) -> Iterator[Box]:
    """Places for a name, the best first: right of its point, left of it, then further below."""
    width = len(name) * LETTER
    for line in (0, 1, -1, *range(2, 40)):
        top = y - LINE / 2 + line * LINE
        yield Box(round(x + 2 * DOT, 2), round(top, 2), width)
        if x - 2 * DOT - width > LEFT:
            yield Box(round(x - 2 * DOT - width, 2), round(top, 2), width)


def _free(boxes: Iterator[Box], taken: Sequence[Box]) -> Box:
    """The first place that nothing covers; the best one where the plot is too full."""
    best = next(boxes)
    return next((b for b in chain([best], boxes) if not any(map(b.covers, taken))), best)
