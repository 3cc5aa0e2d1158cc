"""Logistic regression with fractional targets, by Newton's method, many at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignzoo_arena_hard.games import Array

ROUNDS = 100
CLOSE = 1e-8  # largest entry of the gradient, relative to the total weight, at the end
RIDGE = 1e-9  # keeps directions solvable that change nothing
HALVINGS = 30


@dataclass(frozen=True)
class Regressions:
    """D regressions on the same R rows with P columns, each with its own outcomes."""

    x: Array  # [R, P]
    y: Array  # [D, R] share that was won, in [0, 1]
    weight: Array  # [D, R]
    penalty: float = 0.0

    def objective(self, beta: Array) -> Array:
        """[D] sum_r w_r [log(1 + e^(x_r b)) - y_r x_r b] + penalty/2 |b|^2, of beta [D, P]."""
        logit = beta @ self.x.T
        loss = (self.weight * (np.logaddexp(0, logit) - self.y * logit)).sum(1)
        return np.asarray(loss + self.penalty / 2 * (beta**2).sum(1))

    def slope(self, beta: Array) -> tuple[Array, Array]:
        """Gradient [D, P] and curvature [D, P, P] of the objective."""
        p = chance_of(beta @ self.x.T)
        gradient = (self.weight * (p - self.y)) @ self.x + self.penalty * beta
        bends = self.weight * p * (1 - p)
        curvature = np.stack([(self.x.T * bend) @ self.x for bend in bends])
        return gradient, curvature + (self.penalty + RIDGE) * np.eye(self.x.shape[1])


def fit_logistic(problems: Regressions, start: Array | None = None) -> Array:
    """The minima [D, P] of the objectives; no intercept.

    A row with share y is the same as y rows that were won and 1 - y that were lost. penalty = 1 is
    scikit-learn's default C = 1. Separable data without penalty have no optimum: beta then stops
    where chances are 0 or 1 to eight digits.
    """
    shape = len(problems.y), problems.x.shape[1]
    beta = np.zeros(shape) if start is None else np.broadcast_to(start, shape)
    enough = CLOSE * np.maximum(1.0, problems.weight.sum(1))
    for _ in range(ROUNDS):
        gradient, curvature = problems.slope(beta)
        if (np.abs(gradient).max(1) < enough).all():
            break
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        beta = _stepped(problems, beta, np.asarray(step, np.float64))
    return beta


def chance_of(logit: Array) -> Array:
    """1 / (1 + e^-z) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(logit / 2)))


def _stepped(problems: Regressions, beta: Array, step: Array) -> Array:
    """Newton's steps, each halved until its objective grows by no more than rounding."""
    before = problems.objective(beta)
    allowed = before + 1e-12 * np.abs(before)
    for _ in range(HALVINGS):
        worse = ~(problems.objective(beta - step) <= allowed)
        if not worse.any():
            break
        step = np.where(worse[:, None], step / 2, step)
    return np.asarray(beta - np.where(worse[:, None], 0.0, step))
