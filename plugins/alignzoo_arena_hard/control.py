"""Style control: one logistic regression with a column per model and one per style feature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignzoo_arena_hard.games import Array, Record
from alignzoo_arena_hard.logistic import Regressions, chance_of, fit_logistic

AT_ONCE = 1_000_000  # numbers of one array while many resamples are fitted


@dataclass(frozen=True)
class StyleModel:
    """What a revision's fit looks like.

    logit P(candidate k wins) = scale (beta_k - beta_baseline) + gamma . z, z the contrasts of the
    two answers, standardised over all weighted games.
    """

    contrast: Callable[[Array, Array], Array]  # [Q, 4] of candidate and baseline -> [Q, 4]
    scale: float
    penalty: float  # of |beta|^2 + |gamma|^2, halved
    copies: int  # how often a game is entered; matters only beside a penalty
    ddof: int  # of the standard deviation


@dataclass(frozen=True)
class Entrant:
    """One candidate of a fit."""

    record: Record  # on Q questions
    own: Array  # [Q, 4] its style
    other: Array  # [Q, 4] the baseline's


@dataclass(frozen=True)
class Controlled:
    """What style control found."""

    scores: Array  # [K] percent: chance to win at the fit's mean difference in style
    equal: Array  # [K] percent: chance to win when candidate and baseline write alike
    coefficients: Array  # [F] gamma, in the order of `features`


@dataclass(frozen=True)
class Regression:
    """K candidates on Q questions as rows R = K * Q, candidate by candidate."""

    x: Array  # [R, 1 + K + F]
    won: Array  # [R] weighted sum of the outcomes
    weight: Array  # [R]
    zero: Array  # [F] the standardised contrast of two answers in the same style
    n_questions: int
    model: StyleModel

    @property
    def n_entrants(self) -> int:
        """K."""
        return len(self.x) // self.n_questions

    def fitted(self, won: Array, weight: Array, start: Array | None = None) -> Array:
        """The coefficients [D, 1 + K + F] of D sets of outcomes and weights, [D, R] each."""
        y = won / np.where(weight == 0, 1, weight)
        problems = Regressions(self.x, y, self.model.copies * weight, self.model.penalty)
        return fit_logistic(problems, start)

    def observed(self) -> Array:
        """The coefficients [1, 1 + K + F] of what happened."""
        return self.fitted(self.won[None], self.weight[None])

    def resampled(self, drawn: NDArray[np.int64], start: Array) -> Array:
        """The coefficients [D, ...] when question q was drawn drawn[d, q] times.

        Everything about a question is drawn together: both games, all entrants.
        """
        at_once = max(1, AT_ONCE // len(self.x))
        parts = np.array_split(drawn, -(-len(drawn) // at_once))
        return np.concatenate([self._resampled(part, start) for part in parts])

    def chances(self, beta: Array) -> Array:
        """[D, K] chances to beat the baseline at the mean contrast of the fit: upstream's way."""
        return chance_of(self._strength(beta))

    def equal_chances(self, beta: Array) -> Array:
        """[D, K] chances to beat the baseline at contrast 0."""
        return chance_of(self._strength(beta) + (self.style_effect(beta) @ self.zero)[:, None])

    def style_effect(self, beta: Array) -> Array:
        """[D, F] gamma."""
        return beta[:, 1 + self.n_entrants :]

    def _strength(self, beta: Array) -> Array:
        return np.asarray(self.model.scale * (beta[:, 1 : 1 + self.n_entrants] - beta[:, :1]))

    def _resampled(self, drawn: NDArray[np.int64], start: Array) -> Array:
        times = np.tile(drawn, (1, self.n_entrants))
        return self.fitted(self.won * times, self.weight * times, start)


def regression(
    entrants: Sequence[Entrant], model: StyleModel, features: Sequence[int]
) -> Regression:
    """The rows of a joint fit; `features` picks columns of the style tables."""
    contrasts = [model.contrast(e.own, e.other)[:, list(features)] for e in entrants]
    weight = np.concatenate([e.record.weight for e in entrants])
    style, zero = _standardised(np.concatenate(contrasts), weight, model.ddof)
    n = len(entrants[0].record.weight)
    sides = np.repeat(np.eye(len(entrants)), n, axis=0)
    x = np.hstack([np.full((len(sides), 1), -model.scale), model.scale * sides, style])
    won = np.concatenate([e.record.won for e in entrants])
    return Regression(x, won, weight, zero, n, model)


def style_control(
    entrants: Sequence[Entrant], model: StyleModel, features: Sequence[int]
) -> Controlled:
    """Win rates with the effect of style taken out.

    min over beta, gamma of copies * sum_games w [log(1 + e^eta) - v eta] + penalty/2 |.|^2,
    eta = scale (beta_k - beta_0) + gamma . z; score_k = 100 sigmoid(scale (beta_k - beta_0)).

    gamma and the mean that is taken out of z are shared, so a score depends on who else is in the
    fit. At z = 0 the candidate differs from the baseline as the models of the fit do on average;
    `equal` reads the fit where both write alike, z = (0 - mean) / std.
    Source: the Arena-Hard programs of 2024 and 2025.
    """
    rows = regression(entrants, model, features)
    beta = rows.observed()
    scores, equal = 100 * rows.chances(beta)[0], 100 * rows.equal_chances(beta)[0]
    return Controlled(scores, equal, rows.style_effect(beta)[0])


def _standardised(x: Array, weight: Array, ddof: int) -> tuple[Array, Array]:
    """(x - mean) / std over weighted rows [R, F], and the same of 0 [F]; 0 where x is constant."""
    total = weight.sum()
    mean = weight @ x / total
    centred = x - mean
    variance = weight @ centred**2 / max(total - ddof, 1)
    spread: NDArray[np.float64] = np.sqrt(variance)
    scale = np.where(spread < 1e-12, np.inf, spread)
    return np.asarray(centred / scale), np.asarray(-mean / scale)
