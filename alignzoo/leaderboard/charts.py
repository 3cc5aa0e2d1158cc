"""Geometry of the page's drawings: intervals as bars, length against the leading column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from alignzoo.pages import spanning, ticks

LETTER, LINE = 6.8, 14  # size of a label's letter and of its line
DOT = 5  # half the size of a point


@dataclass(frozen=True)
class Frame:
    """The size of a plot and its margins, in SVG units of about a pixel."""

    width: int
    right: int
    height: int = 360
    left: int = 56
    top: int = 14
    bottom: int = 44

    @property
    def floor(self) -> int:
        """Where the x axis lies."""
        return self.height - self.bottom

    @property
    def middle(self) -> float:
        """The middle of the x axis."""
        return (self.left + self.width - self.right) / 2


WIDE = Frame(720, right=150)  # on the right there is room for a name
NARROW = Frame(360, right=16)  # for a telephone, whose width it has: type keeps its size


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
    """A point as it is drawn; its name, or its beginning, stands at (label_x, label_y)."""

    point: Point
    label: str
    x: float
    y: float
    y_low: float
    y_high: float
    label_x: float
    label_y: float


@dataclass(frozen=True)
class Scatter:
    """Everything a template needs to draw the plot."""

    frame: Frame
    x_name: str
    x_short: str  # as much of it as fits below the axis
    y_name: str
    marks: tuple[Mark, ...]
    x_ticks: tuple[tuple[float, str], ...]  # place, number
    y_ticks: tuple[tuple[float, str], ...]


def scatter(points: Sequence[Point], x_name: str, y_name: str, frame: Frame = WIDE) -> Scatter:
    """Place points, their intervals, ticks, and names that cover neither points nor each other."""
    across = spanning([p.x for p in points], frame.left, frame.width - frame.right)
    up = spanning([y for p in points for y in (p.low, p.y, p.high)], frame.floor, frame.top)
    taken = [_dot(across(p.x), up(p.y)) for p in points]
    room = frame.width - frame.left
    marks = []
    for p in sorted(points, key=lambda p: -p.y):
        x, y, label = across(p.x), up(p.y), shortened(p.name, room)
        box = _free(_boxes(label, x, y, frame), taken)
        taken.append(box)
        place = (box.left, box.top + LINE / 2)
        marks.append(Mark(p, label, x, y, up(p.low), up(p.high), *place))
    return Scatter(
        frame,
        x_name,
        shortened(x_name, frame.width),
        y_name,
        tuple(marks),
        tuple((across(t), f"{t:g}") for t in ticks(across.low, across.high)),
        tuple((up(t), f"{t:g}") for t in ticks(up.low, up.high)),
    )


def shortened(text: str, width: float) -> str:
    """As much of a text as fits."""
    letters = int(width / LETTER)
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


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


def _boxes(name: str, x: float, y: float, frame: Frame) -> Iterator[Box]:
    """Places for a name inside the frame, the best first: right of its point, left of it, above
    and below it, then further away.
    """
    width = len(name) * LETTER
    last = frame.width - width  # how far right it may begin
    for line in (0, 1, -1, *range(2, 40)):
        top = round(y - LINE / 2 + line * LINE, 2)
        if x + 2 * DOT <= last:
            yield Box(round(x + 2 * DOT, 2), top, width)
        if x - 2 * DOT - width > frame.left:
            yield Box(round(x - 2 * DOT - width, 2), top, width)
        if line:
            yield Box(round(max(frame.left, min(last, x - width / 2)), 2), top, width)


def _free(boxes: Iterator[Box], taken: Sequence[Box]) -> Box:
    """The first place that nothing covers; the best one where the plot is too full."""
    best = next(boxes)
    return next((b for b in chain([best], boxes) if not any(map(b.covers, taken))), best)
