"""From verdicts to a win rate: two games a question, weights, Bradley-Terry in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

RATING = 1000.0  # of the baseline, by definition
SCALE = 400.0  # rating points that make odds ten times as large


@dataclass(frozen=True)
class Game:
    """One verdict, seen from the candidate."""

    value: float  # 1 the candidate won, 0 the baseline won, .5 a tie
    weight: float = 1.0


Duel: TypeAlias = Sequence[Game | None]  # the games of one question; None: no verdict
Counting: TypeAlias = Callable[[Duel], list[Game]]  # the games of a question that count


@dataclass(frozen=True)
class Record:
    """What a candidate achieved on Q questions."""

    won: Array  # [Q] sum of weight * value
    weight: Array  # [Q] sum of weights; 0: no verdict

    @property
    def judged(self) -> bool:
        """Whether there is a verdict at all."""
        return bool(self.weight.sum() > 0)


def each_game(duel: Duel) -> list[Game]:
    """Every game with a verdict, whatever became of the other one: the program of 2024."""
    return [game for game in duel if game is not None]


def whole_duels(duel: Duel) -> list[Game]:
    """All games of a question, or none if one has no verdict: the program of 2025."""
    found = each_game(duel)
    return found if len(found) == len(duel) else []


def record(duels: Iterable[Duel], counting: Counting) -> Record:
    """Sums per question."""
    counted = [counting(duel) for duel in duels]
    return Record(
        np.array([math.fsum(g.weight * g.value for g in games) for games in counted]),
        np.array([math.fsum(g.weight for g in games) for games in counted]),
    )


def win_rate(found: Record) -> float:
    """Chance p = sum w v / sum w over games: value v in {0, .5, 1}, weight w.

    This is the Bradley-Terry maximum likelihood estimate of the chance to beat the baseline when
    everybody meets only the baseline: the model of one candidate then shares nothing with the
    others, and its optimum has the observed mean. NaN without a verdict.
    """
    return float(found.won.sum() / found.weight.sum()) if found.judged else math.nan


def rating(p: float) -> float:
    """R = 1000 + 400 log10(p / (1 - p)), the Elo-like scale of upstream; the baseline has 1000."""
    if p in (0.0, 1.0):
        return math.inf if p else -math.inf
    return RATING + SCALE * math.log10(p / (1 - p))


def chance(r: float) -> float:
    """Chance p = 1 / (1 + 10^((1000 - R) / 400)), the inverse of `rating`."""
    return 0.0 if r == -math.inf else 1 / (1 + 10 ** ((RATING - r) / SCALE))


def per_question(found: Record) -> tuple[float | None, ...]:
    """100 times the weighted mean of the candidate's games, question by question."""
    pairs = zip(found.won, found.weight, strict=True)
    return tuple(float(100 * won / weight) if weight else None for won, weight in pairs)
