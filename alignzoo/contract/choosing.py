"""Which pairs the scored answers to a prompt make: in a label stage, and while a policy samples.

A rule sees answers that can be compared for equality, their scores, and a source of noise of their
own. It gives as many pairs whatever the scores, so that every process makes equally many.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.types import Batch, PairBatch


@dataclass(frozen=True)
class Pick:
    """Numbers of two answers."""

    chosen: int
    rejected: int
    tie: bool  # nothing speaks for either: a coin decides


@dataclass(frozen=True)
class Chooser:
    """A rule, and how many pairs it makes of k answers."""

    picks: Callable[[Sequence[object], Sequence[float], random.Random], list[Pick]]
    count: Callable[[int], int]


def best_worst(
    answers: Sequence[object], scores: Sequence[float], noise: random.Random
) -> list[Pick]:
    """The best answer against the worst; equal scores are a tie, of two answers by lot."""
    best = max(range(len(scores)), key=scores.__getitem__)
    worst = min(range(len(scores)), key=scores.__getitem__)
    if scores[best] == scores[worst]:
        first, second = noise.sample(range(len(scores)), 2)
        return [Pick(first, second, tie=True)]
    return [Pick(best, worst, tie=False)]


def bradley_terry(
    answers: Sequence[object], scores: Sequence[float], noise: random.Random
) -> list[Pick]:
    """Neighbours a, b in random order; a is chosen with P = sigmoid(score_a - score_b).

    Equal answers are a tie.
    """
    return _drawn(answers, scores, noise, sigmoid)


def by_win_rate(
    answers: Sequence[object], scores: Sequence[float], noise: random.Random
) -> list[Pick]:
    """The same for win rates w, with P = (1 + w_a - w_b) / 2: of two answers, the judge's own P."""
    return _drawn(answers, scores, noise, lambda margin: (1 + margin) / 2)


def _drawn(
    answers: Sequence[object],
    scores: Sequence[float],
    noise: random.Random,
    link: Callable[[float], float],
) -> list[Pick]:
    picks: list[Pick] = []
    for left in range(len(answers) - 1):
        a, b = noise.sample((left, left + 1), 2)
        a_wins = noise.random() < link(scores[a] - scores[b])
        chosen, rejected = (a, b) if a_wins else (b, a)
        picks.append(Pick(chosen, rejected, tie=answers[a] == answers[b]))
    return picks


# Numbers that a rollout makes of answers.
MADE = ("reward", "ended", "group", "score", "score_chosen", "score_rejected")
BEST_WORST = Chooser(best_worst, lambda k: 1)
CHOOSERS: Mapping[str, Chooser] = {
    "best_worst": BEST_WORST,
    "bradley_terry": Chooser(bradley_terry, lambda k: k - 1),
}
WIN_CHOOSERS: Mapping[str, Chooser] = {  # where scores are win rates
    **CHOOSERS,
    "bradley_terry": Chooser(by_win_rate, lambda k: k - 1),
}


def items_of(kind: type[Batch], answers: int, chooser: Chooser = BEST_WORST) -> int:
    """How many items of a kind of batch the answers to one prompt make."""
    if issubclass(kind, PairBatch):
        return chooser.count(answers)
    return 1 if issubclass(kind, GroupBatch) else answers


def fields_of_rows(kind: type[Batch]) -> list[str]:
    """Fields of a batch class that no rollout makes: numbers of the prompt's row of data."""
    known = {*(f.name for f in fields(Batch)), *MADE}
    return [f.name for f in fields(kind) if f.name not in known]


def fills_itself(kind: type[Batch]) -> bool:
    """Whether a batch class has a `collate` of its own, which knows what a row may lack."""
    return kind.collate.__func__ is not Batch.collate.__func__  # type: ignore[attr-defined]


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + math.tanh(x / 2))
