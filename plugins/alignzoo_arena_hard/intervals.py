"""Upstream's own intervals, for comparison with its tables.

They resample single games, of which a strong verdict is several, as if the two games of a question
had nothing to do with each other. That makes them too narrow; the columns of the benchmark resample
questions instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignzoo_arena_hard.control import Regression
from alignzoo_arena_hard.games import Array, Counting, Duel, chance, rating

ROUNDS, SEED = 100, 42


@dataclass(frozen=True)
class Battles:
    """Games written out one by one, a strong one several times: model, question, game."""

    row: NDArray[np.int64]  # [N] model * Q + question
    value: Array  # [N] 1 the candidate won, .5, 0
    n_models: int
    n_questions: int

    def __len__(self) -> int:
        return len(self.row)

    def drawn(self, places: NDArray[np.int64]) -> tuple[Array, Array]:
        """(won, weight), each [R = models * questions], of the battles at these places."""
        n = self.n_models * self.n_questions
        rows = self.row[places]
        weight = np.bincount(rows, minlength=n).astype(np.float64)
        won = np.bincount(rows, weights=self.value[places], minlength=n).astype(np.float64)
        return won, weight


Statistic = Callable[[Array, Array], Array]  # won [R], weight [R] -> chances [K]


def battles(models: Sequence[Sequence[Duel]], counting: Counting) -> Battles:
    """All battles of all models on the same questions; weights must be whole numbers."""
    n = len(models[0])
    rows: list[int] = []
    values: list[float] = []
    for m, duels in enumerate(models):
        for q, duel in enumerate(duels):
            for game in counting(duel):
                rows += [m * n + q] * int(game.weight)
                values += [game.value] * int(game.weight)
    return Battles(np.array(rows, np.int64), np.array(values), len(models), n)


def raw_chances(n_models: int) -> Statistic:
    """Win rates in closed form, [K]."""

    def found(won: Array, weight: Array) -> Array:
        sums = won.reshape(n_models, -1).sum(1), weight.reshape(n_models, -1).sum(1)
        return np.asarray(sums[0] / sums[1])

    return found


def controlled_chances(rows: Regression) -> Statistic:
    """Style-controlled win rates, [K], the features standardised once and for all."""
    start = rows.observed()
    return lambda won, weight: rows.chances(rows.fitted(won[None], weight[None], start))[0]


def interval_2024(games: Battles, statistic: Statistic) -> Array:
    """[K, 2] percent: 2.5 % and 97.5 % percentiles of 100 resamples, seed 42.

    The order of the battles decides which are drawn: models in the order of upstream's files.
    Percentiles are taken of ratings and then turned into win rates.
    """
    noise = np.random.RandomState(SEED)
    n = len(games)
    draws = [statistic(*games.drawn(noise.randint(0, n, n))) for _ in range(ROUNDS)]
    ratings = np.vectorize(rating)(np.array(draws))  # [rounds, K]
    ends = np.percentile(ratings, (2.5, 97.5), axis=0)  # [2, K]
    return np.asarray(100 * np.vectorize(chance)(ends.T))


def interval_2025(values: Sequence[float], seed: int = SEED) -> tuple[float, float, float]:
    """(mean, low, high) percent of one model's games, strong ones repeated.

    The mean of 100 resampled means and their 5 % and 95 % percentiles, as the program of 2025
    prints them; it sets no seed, so its last digit is noise.
    """
    noise = np.random.RandomState(seed)
    known = np.asarray(values, dtype=np.float64)
    n = len(known)
    means = np.array([known[noise.randint(0, n, n)].mean() for _ in range(ROUNDS)])
    low, high = np.percentile(means, (5, 95))
    return float(100 * means.mean()), float(100 * low), float(100 * high)
