"""The length-controlled win rate: what a judge would prefer if both outputs were equally long.

One logistic model per candidate, without intercept, P(candidate preferred) =
sigmoid(a tanh(dl) + b difficulty + c), where dl = (characters of the baseline's output minus the
candidate's) / s and s is the standard deviation (divisor n - 1) of that difference over the
candidate's rows. The win rate is read off with dl = 0. Source: arXiv:2404.04475 and alpaca_eval
0.6.6.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from alignzoo import AlignzooError, bootstrap
from alignzoo_alpaca_eval.metrics import average, standard_error

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

GRID = tuple(float(C) for C in np.logspace(-4, 4, 10))
FOLDS = 5
GAMED_WEIGHT = 0.2 / 2  # of a gamed row; there are two gamed versions
SEED = 123
OFFICIAL_TOLERANCE = 1e-4  # liblinear's default, at which the official program stops
TOLERANCE = 1e-10
TRACE = 1e-9
MOST_STEPS = 10_000


def floats(values: Sequence[float | None]) -> Floats:
    """A vector; None becomes NaN."""
    return np.array([np.nan if x is None else x for x in values], dtype=np.float64)


@dataclass(frozen=True)
class Gamed:
    """The baseline against versions of itself that differ in length only, R rows."""

    preference: Floats  # [R] for the version, 0 to 1
    longer: Floats  # [R] the length difference, standardised
    difficulty: Floats  # [R]


@dataclass(frozen=True)
class Comparison:
    """One candidate against the baseline, n instructions.

    All that is given is used: difficulty and gamed rows make the published model
    ("length_controlled_v1"), without gamed rows it is "noreg", without both "minimal".
    """

    preference: Floats  # [n] for the candidate, 0 to 1; NaN: no verdict
    longer: Floats  # [n] characters of the baseline's output minus the candidate's
    difficulty: Floats | None = None  # [n]
    gamed: Gamed | None = None

    def take(self, rows: Sequence[int]) -> Comparison:
        """The comparison on some instructions, perhaps repeated; gamed rows stay."""
        chosen = np.asarray(rows, dtype=np.intp)
        return replace(
            self,
            preference=self.preference[chosen],
            longer=self.longer[chosen],
            difficulty=None if self.difficulty is None else self.difficulty[chosen],
        )

    @property
    def n_verdicts(self) -> int:
        """How many rows there are to fit."""
        return int((~np.isnan(self.preference)).sum())

    @property
    def has_verdict(self) -> bool:
        """Whether there is anything to fit."""
        return self.n_verdicts > 0

    @property
    def is_constant(self) -> bool:
        """Whether all verdicts say the same, so that drawing rows anew cannot move the fit."""
        known = self.preference[~np.isnan(self.preference)]
        return not len(known) or bool(known.min() == known.max())

    @property
    def is_with_itself(self) -> bool:
        """Whether nothing tells the candidate from the baseline."""
        return not self.longer.any() and bool((self.preference == 0.5).all())


@dataclass(frozen=True)
class Design:
    """What a fit sees: R rows with F features. A row counts as a win of weight w p and a loss of
    weight w (1 - p).
    """

    features: Floats  # [R, F]
    preference: Floats  # [R] p
    weight: Floats  # [R] w

    def take(self, rows: Mask) -> Design:
        """Some rows, chosen by a mask [R]."""
        return Design(self.features[rows], self.preference[rows], self.weight[rows])


@dataclass(frozen=True)
class LengthControl:
    """A fitted model and what it says at equal lengths."""

    win_rate: float  # percent
    standard_error: float  # percent; of the predictions only, no interval for the win rate
    predictions: tuple[float, ...]  # [n] percent, one per instruction
    C: float | None  # inverse strength of the L1 penalty; None: nothing was fitted
    coefficients: tuple[float, ...]  # of tanh(dl), difficulty where it is known, quality


def length_control(
    comparison: Comparison, C: float | None = None, tolerance: float = TOLERANCE
) -> LengthControl:
    """Fit the model and predict every instruction at dl = 0, also those without a verdict.

    The loss is the weighted log-loss with an L1 penalty, min |beta|_1 + C sum w [-p log q -
    (1 - p) log(1 - q)]. Without C, the largest held-out score over 10 values from 1e-4 to 1e4
    decides. A candidate that is the baseline has 50 by construction.

    Deviations: fits are exact; the official program stops at a tolerance of 1e-4, which moves the
    result by up to .02 points (.06 for "minimal"). With fewer than five rows C is 1.

    Raises AlignzooError when scikit-learn is missing or no instruction has a verdict.
    """
    if comparison.is_with_itself:
        return _summary(np.full(len(comparison.longer), 0.5), None, ())
    if not comparison.has_verdict:
        raise AlignzooError("length control: no instruction has a verdict, there is nothing to fit")
    design = training_rows(comparison)
    C = best_C(design, tolerance) if C is None else C
    coefficients = fit(design, C, tolerance)
    predictions = _sigmoid(_at_equal_length(comparison) @ coefficients)
    return _summary(predictions, C, tuple(float(x) for x in coefficients))


def length_control_interval(
    comparison: Comparison, C: float | None, rounds: int = 200
) -> tuple[float, float]:
    """95 % interval in percent: instructions are drawn anew and everything but C is refitted.

    Verdicts that are all alike give a point, since nothing but the noise of the fits would move.
    """
    if comparison.is_with_itself:
        return 50.0, 50.0
    if comparison.is_constant:
        return (length_control(comparison, C).win_rate,) * 2

    def refitted(rows: Sequence[int]) -> float:
        drawn = comparison.take(rows)
        return length_control(drawn, C).win_rate if drawn.has_verdict else math.nan

    return bootstrap(len(comparison.longer), refitted, rounds)


# --- the model -----------------------------------------------------------------------------


def training_rows(comparison: Comparison) -> Design:
    """The gamed rows with weight 0.1 and quality 0, then the candidate's with weight 1 and
    quality 1; rows without a verdict are left out.
    """
    spread = float(np.std(comparison.longer, ddof=1)) if len(comparison.longer) > 1 else 0.0
    # Lengths that always differ alike say nothing about length.
    standardised = comparison.longer / spread if spread else np.zeros_like(comparison.longer)
    own = _design(standardised, comparison.difficulty, comparison.preference, 1.0, 1.0)
    known = ~np.isnan(own.preference)
    gamed = comparison.gamed
    if gamed is None:
        return own.take(known)
    difficulty = None if comparison.difficulty is None else gamed.difficulty
    fixed = _design(gamed.longer, difficulty, gamed.preference, 0.0, GAMED_WEIGHT)
    kept = ~np.isnan(fixed.preference)
    return _joined(fixed.take(kept), own.take(known))


def _design(
    longer: Floats, difficulty: Floats | None, preference: Floats, quality: float, weight: float
) -> Design:
    return Design(
        _features(np.tanh(longer), difficulty, quality), preference, np.full(len(longer), weight)
    )


def _features(length: Floats, difficulty: Floats | None, quality: float) -> Floats:
    middle = [] if difficulty is None else [difficulty]
    return np.column_stack([length, *middle, np.full(len(length), quality)])


def _at_equal_length(comparison: Comparison) -> Floats:
    return _features(np.zeros_like(comparison.longer), comparison.difficulty, 1.0)


def _joined(one: Design, other: Design) -> Design:
    return Design(
        np.concatenate([one.features, other.features]),
        np.concatenate([one.preference, other.preference]),
        np.concatenate([one.weight, other.weight]),
    )


def fit(design: Design, C: float, tolerance: float = TOLERANCE) -> Floats:
    """Coefficients [F] of the penalised model, by liblinear's coordinate descent.

    Raises AlignzooError when scikit-learn is missing.
    """
    p, w = _with_both(design.preference), design.weight
    wins_then_losses = np.concatenate([design.features, design.features])
    model = _solver(C, tolerance).fit(
        wins_then_losses,
        np.repeat([1, 0], len(p)),
        sample_weight=np.concatenate([w * p, w * (1 - p)]),
    )
    return np.asarray(model.coef_[0], dtype=np.float64)


def _with_both(p: Floats) -> Floats:
    """The preferences, with a trace of wins and losses: liblinear answers 0 without one of them."""
    return np.clip(p, TRACE, 1 - TRACE) if p.max() == 0 or p.min() == 1 else p


def _solver(C: float, tolerance: float) -> Any:
    try:
        linear_model = importlib.import_module("sklearn.linear_model")
    except ImportError as error:
        raise AlignzooError(
            "length control needs scikit-learn: pip install 'alignzoo[eval]'"
        ) from error
    model = linear_model.LogisticRegression(
        solver="liblinear",
        fit_intercept=False,
        random_state=SEED,
        C=C,
        tol=tolerance,
        max_iter=MOST_STEPS,
    )
    # scikit-learn 1.8 renamed the choice of the penalty.
    renamed = model.penalty == "deprecated"
    return model.set_params(**{"l1_ratio": 1.0} if renamed else {"penalty": "l1"})


def held_out_score(design: Design, C: float, tolerance: float = TOLERANCE) -> float:
    """Mean over five folds of mean w [p log q + (1 - p) log(1 - q)] on the rows left out.

    Row r of R is in fold (R - 1 - r) mod 5, which is where scikit-learn's GroupKFold puts rows
    that are all their own group.
    """
    fold = np.arange(len(design.preference))[::-1] % FOLDS
    return float(np.mean([_fold_score(design, fold == k, C, tolerance) for k in range(FOLDS)]))


def _fold_score(design: Design, left_out: Mask, C: float, tolerance: float) -> float:
    coefficients = fit(design.take(~left_out), C, tolerance)
    rows = design.take(left_out)
    q = np.clip(_sigmoid(rows.features @ coefficients), 1e-15, 1 - 1e-15)
    p = rows.preference
    return float(np.mean(rows.weight * (p * np.log(q) + (1 - p) * np.log(1 - q))))


def best_C(design: Design, tolerance: float = TOLERANCE) -> float:
    """The value of the grid with the largest held-out score, the smallest such; 1 below five rows.

    Scores of neighbours differ by 1e-7 to 1e-6, less than the official program's solver is exact
    to: its own choice is noise, and with it about .1 points of the win rate.
    """
    if len(design.preference) < FOLDS:
        return 1.0
    return max(GRID, key=lambda C: held_out_score(design, C, tolerance))


def _sigmoid(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -x))


def _summary(
    predictions: Floats, C: float | None, coefficients: tuple[float, ...]
) -> LengthControl:
    percent = tuple(100 * float(x) for x in predictions)
    return LengthControl(average(percent), standard_error(percent), percent, C, coefficients)
