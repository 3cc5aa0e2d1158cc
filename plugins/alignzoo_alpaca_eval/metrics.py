"""Win rates from preferences, as the official program counts them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class WinRate:
    """One row of the official leaderboard; rates in percent."""

    win_rate: float
    standard_error: float
    discrete_win_rate: float
    n_wins: int
    n_losses: int
    n_draws: int

    @property
    def n_total(self) -> int:
        """Instructions with a verdict."""
        return self.n_wins + self.n_losses + self.n_draws


def win_rate(preferences: Sequence[float | None]) -> WinRate:
    """Rates over the preferences for the candidate, each in [0, 1]; None has no verdict.

    WR = 100 mean(p). SE = 100 s / sqrt(n), s with divisor n - 1; 0 for n < 2, where the official
    program has none. A win is p > 1/2, a loss p < 1/2, a draw p = 1/2 exactly, and
    discrete = 100 (wins + draws / 2) / n. All rates are NaN without a verdict.
    Source: alpaca_eval 0.6.6.
    """
    found = [p for p in preferences if p is not None]
    wins, losses = sum(p > 0.5 for p in found), sum(p < 0.5 for p in found)
    draws = len(found) - wins - losses
    return WinRate(
        100 * average(found),
        100 * standard_error(found),
        100 * average([0.5 * (1 + (p > 0.5) - (p < 0.5)) for p in found]),
        wins,
        losses,
        draws,
    )


def average(values: Sequence[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def standard_error(values: Sequence[float]) -> float:
    """Sample standard deviation (divisor n - 1) over sqrt(n); 0 for n < 2."""
    if len(values) < 2:
        return 0.0
    centre, n = average(values), len(values)
    return math.sqrt(math.fsum((x - centre) ** 2 for x in values) / (n - 1) / n)


def moved_far(raw: float, controlled: float) -> bool:
    """Whether length control moved a win rate (both in percent) suspiciously far.

    The official warning: by more than 10 points and more than a quarter of the way to the bound
    (0 or 100) it moved towards.
    """
    towards = raw if controlled < raw else 100 - raw
    return abs(controlled - raw) > max(10, towards / 4)
