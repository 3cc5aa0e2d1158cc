"""From a judge's words to numbers: parsers, means over all rows, intervals over questions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from alignzoo import Estimate, bootstrap

GRADE = re.compile(r"\[\[(\d+(?:\.\d*)?)\]\]")
BACKUP = re.compile(r"\[(\d+(?:\.\d*)?)\]")
LOWEST, HIGHEST = 1, 10
WINNERS = ("[[A]]", "[[B]]", "[[C]]")  # C is a tie
VERSION = 1  # of the parsers


def read_grade(text: str) -> tuple[float, str] | None:
    """The grade and the words it was read from; None where the official program writes -1.

    The first number in double brackets, else the first in single ones, so "[1]" of a citation is
    a grade too. There is no check of the range.
    """
    found = GRADE.search(text) or BACKUP.search(text)
    if found is None or not math.isfinite(float(found[1])):
        return None
    return float(found[1]), found[0]


def on_scale(grade: float) -> bool:
    """Whether it is from 1 to 10."""
    return LOWEST <= grade <= HIGHEST


def read_winner(text: str) -> str | None:
    """`[[A]]`, `[[B]]` or, for a tie, `[[C]]`: the first of them, in this order, that occurs."""
    return next((label for label in WINNERS if label in text), None)


def overall(values: Sequence[Sequence[float]]) -> float | None:
    """Mean over all rows, whatever the question they belong to; None without a row.

    `values[i]` are the readable rows of question i. With rows missing, this is neither the mean of
    the two turns' means nor the mean of the questions' means.
    """
    rows = [x for own in values for x in own]
    return math.fsum(rows) / len(rows) if rows else None


def estimate(values: Sequence[Sequence[float]]) -> Estimate | None:
    """`overall` with its 95 % bootstrap interval over questions; both turns stay together."""
    centre = overall(values)
    if centre is None:
        return None
    sums = [(math.fsum(own), len(own)) for own in values if own]

    def ratio(drawn: Sequence[int]) -> float:
        return sum(sums[i][0] for i in drawn) / sum(sums[i][1] for i in drawn)

    low, high = bootstrap(len(sums), ratio)
    return Estimate(centre, low, high)
