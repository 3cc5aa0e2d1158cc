"""Verdict labels: how they are found in a judge's reply, and what they say.

A is the answer shown first. `>` is better, `>>` much better, `=` a tie.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

DOUBLE = re.compile(r"\[\[([AB<>=]+)\]\]")
SINGLE = re.compile(r"\[([AB<>=]+)\]")


@dataclass(frozen=True)
class Label:
    """What a label says of the answer shown first."""

    first: float  # 1 it won, 0 it lost, .5 a tie
    strong: bool = False  # ">>": counts `weight` times


FIVE: Mapping[str, Label] = {
    "A>>B": Label(1.0, strong=True),
    "A>B": Label(1.0),
    "A=B": Label(0.5),
    "B>A": Label(0.0),
    "B>>A": Label(0.0, strong=True),
}
MIRRORED: Mapping[str, Label] = {
    "B<<A": Label(1.0, strong=True),
    "B<A": Label(1.0),
    "B=A": Label(0.5),
    "A<B": Label(0.0),
    "A<<B": Label(0.0, strong=True),
}
TEN: Mapping[str, Label] = {**FIVE, **MIRRORED}


def distinct_labels(text: str) -> tuple[str, ...]:
    """The different labels in double brackets, in order of appearance.

    A reply with exactly one is a verdict; one with several contradicts itself. Source: the program
    of 2024.
    """
    return tuple(dict.fromkeys(DOUBLE.findall(text)))


def last_label(text: str) -> tuple[str, ...]:
    """The last label in double brackets, else the last one in single brackets; case is ignored.

    Source: the program of 2025.
    """
    for pattern in (DOUBLE, SINGLE):
        if found := pattern.findall(text.upper()):
            return (str(found[-1]),)
    return ()
