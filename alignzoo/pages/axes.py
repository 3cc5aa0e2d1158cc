"""Numbers to places: scales, round ticks, digits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"


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
    places = range(math.ceil(low / step), math.floor(high / step) + 1)
    digits = max(10, 2 - math.floor(math.log10(step)))
    return [round(k * step, digits) for k in places]


@dataclass(frozen=True)
class Axis:
    """An axis as it is drawn: its ticks in percent of its length, from its beginning."""

    name: str
    scale: Scale
    ticks: tuple[tuple[float, str], ...]  # place, number


def axis(name: str, scale: Scale, about: int = 5) -> Axis:
    """The axis of a scale, whatever places the scale itself maps to."""
    percent = Scale(scale.low, scale.high)
    marks = ticks(scale.low, scale.high, about)
    return Axis(name, scale, tuple((percent(t), f"{t:.6g}".replace("-", MINUS)) for t in marks))


def decimals(values: Iterable[float]) -> int:
    """Digits behind the point that fit a column: three for shares, none for thousands."""
    largest = max(map(abs, values), default=0.0)
    return next((d for limit, d in ((2, 3), (100, 2), (1000, 1)) if largest < limit), 0)
