"""Coloured lines of tokens, for the page of a lens and for sections of other pages.

Importing this does not import torch: a page of runs takes its colours from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from alignzoo.lens.tokens import CLOSE, OPEN
from alignzoo.pages import Source

COLOURS = Source(Path(__file__).parent, styles=("colours.css",))  # of a section on another page
STEPS = 10  # of colour on each side of zero


@dataclass(frozen=True)
class Token:
    """A token as it is drawn: its colour's class, and its value in words."""

    parts: tuple[tuple[str, bool], ...]  # text, and whether it is a sign for something else
    colour: str
    told: str


@dataclass(frozen=True)
class Line:
    """One response under one method, or the difference of two."""

    name: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Shown:
    """A response with its lines."""

    number: int
    place: str
    label: str
    prompt: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Legend:
    """What the colours of a line mean."""

    name: str
    unit: str
    limit: float

    @property
    def ends(self) -> tuple[str, str, str]:
        """The ends and the middle of the scale, with the unit."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{-self.limit:.3g}{unit}", "0", f"{self.limit:.3g}{unit}"


def token_of(parts: tuple[tuple[str, bool], ...], x: float, legend: Legend) -> Token:
    """A token and its value as they are drawn."""
    return Token(parts, colour_of(x, legend.limit), _told(x, legend.unit))


def colour_of(x: float, limit: float) -> str:
    """The class of a value's colour: c10 is zero, c0 and c20 are the limits and beyond."""
    if math.isnan(x):
        return "u"
    return f"c{STEPS + round(STEPS * max(-1.0, min(1.0, x / limit)))}"


def _told(x: float, unit: str) -> str:
    return "not defined here" if math.isnan(x) else f"{x:.3g}{' ' + unit if unit else ''}"


def parts_of(shown: str) -> tuple[tuple[str, bool], ...]:
    """A shown text cut into plain text and signs."""
    found: list[tuple[str, bool]] = []
    for part in shown.split(OPEN):
        sign, closed, rest = part.partition(CLOSE)
        found += [(sign, True), (rest, False)] if closed else [(part, False)]
    return tuple((text, sign) for text, sign in found if text)
