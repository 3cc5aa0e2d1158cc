"""Win rates with their intervals, questions being the unit of resampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from alignzoo import Estimate, bootstrap
from alignzoo_arena_hard.control import Entrant, Regression, StyleModel, regression
from alignzoo_arena_hard.games import Array, Record, per_question, win_rate
from alignzoo_arena_hard.style import LENGTH, MARKDOWN, STYLE

Reading = Callable[[Regression, Array], Array]  # coefficients [D, ...] -> chances [D, K]
CONTROLS: Mapping[str, tuple[str, tuple[int, ...], Reading]] = {
    "style_controlled": ("the effect of style taken out", STYLE, Regression.chances),
    "equal_style": ("at equal length, headers, lists, bold text", STYLE, Regression.equal_chances),
    "length_controlled": ("the effect of length taken out", LENGTH, Regression.chances),
    "markdown_controlled": ("the effect of Markdown taken out", MARKDOWN, Regression.chances),
}


def scored(own: Record) -> Estimate | None:
    """The win rate with the interval of resampled questions; None without a verdict."""
    if not own.judged:
        return None

    def drawn(questions: Sequence[int]) -> float:
        places = list(questions)
        return 100 * win_rate(Record(own.won[places], own.weight[places]))

    return Estimate(100 * win_rate(own), *bootstrap(len(own.won), drawn))


def controlled(entrants: Sequence[Entrant], model: StyleModel) -> dict[str, Estimate | None]:
    """The candidate's controlled win rates, with intervals from the same resampled questions.

    A candidate that fares alike on all questions has a point: the penalty of the fit alone keeps it
    from the end of the scale, and resampling cannot move it.
    """
    if not entrants[0].record.judged:
        return dict.fromkeys(CONTROLS)
    n = len(entrants[0].record.won)
    constant = len({x for x in per_question(entrants[0].record) if x is not None}) == 1
    drawn = _draws(n)
    judged = drawn @ entrants[0].record.weight > 0
    found: dict[str, Estimate | None] = {}
    for features in dict.fromkeys(features for _, features, _ in CONTROLS.values()):
        rows = regression(entrants, model, features)
        beta = rows.observed()
        resampled = rows.resampled(drawn, beta)
        for name in (name for name, control in CONTROLS.items() if control[1] == features):
            reading = CONTROLS[name][2]
            value = 100 * float(reading(rows, beta)[0, 0])
            values = np.where(judged, 100 * reading(rows, resampled)[:, 0], math.nan)
            ends = (value, value) if constant else _interval(n, values.tolist())
            found[name] = Estimate(value, *ends)
    return {name: found[name] for name in CONTROLS}


def _interval(n: int, values: Sequence[float]) -> tuple[float, float]:
    """That of `bootstrap`, the statistic of its resamples being known already."""
    known = iter(values)
    return bootstrap(n, lambda _: next(known))


def _draws(n: int) -> NDArray[np.int64]:
    """[D, n] how often each question is in each resample of `bootstrap`, to fit them at once."""
    counts: list[NDArray[np.int64]] = []

    def noted(questions: Sequence[int]) -> float:
        counts.append(np.bincount(questions, minlength=n))
        return math.nan

    bootstrap(n, noted)
    return np.array(counts)
