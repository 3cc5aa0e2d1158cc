"""From comparisons of answers to one prompt to a value for each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from alignzoo.contract.evaluation import Answer, mean

Pair = tuple[int, int]  # numbers of two answers to one prompt
EQUAL = 0.5  # two answers of the same words


def duels(group: Sequence[Answer]) -> list[Pair]:
    """The pairs of answers that are to be compared: those of the same words are equal."""
    every = combinations(range(len(group)), 2)
    return [(i, j) for i, j in every if group[i].turns != group[j].turns]


def win_rates(group: Sequence[Answer], better: Mapping[Pair, float | None]) -> list[float | None]:
    """w_i = mean over the other answers j of P(i better than j).

    `better` has P(i better than j) for the `duels`; None is one that the judge left open, which
    counts for neither. None for an answer all of whose duels are open.
    """
    games: list[list[float]] = [[] for _ in group]
    for i, j in combinations(range(len(group)), 2):
        p = better.get((i, j), EQUAL)
        if p is not None:
            games[i].append(p)
            games[j].append(1 - p)
    return [mean(own) if own else None for own in games]


def filled(
    groups: Sequence[Sequence[float | None]], even: float | None = None
) -> list[list[float]] | None:
    """Values without gaps: an answer without one gets the mean of the others to its prompt, and
    where no answer to it has one, `even`, of win rates 1/2, else the mean of all. None where
    nothing at all has a value.
    """
    known = [x for group in groups for x in group if x is not None]
    if not known and any(groups):
        return None
    whole = math.fsum(known) / len(known) if known else 0.0
    return [_filled(group, whole if even is None else even) for group in groups]


def _filled(group: Sequence[float | None], whole: float) -> list[float]:
    own = [x for x in group if x is not None]
    usual = mean(own) if own else whole
    return [usual if x is None else x for x in group]
