"""The contract of judges and benchmarks, and the formulas every scored benchmark shares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from alignzoo.types import PromptSample, PromptText, Response

WIN_RATE = "win_rate"  # the column that needs a baseline


@dataclass(frozen=True)
class Answer:
    """A response to a prompt, ready to be judged."""

    sample: PromptSample
    response: Response
    n_tokens: int  # response tokens, the stop token not counted

    @property
    def prompt(self) -> PromptText:
        """The prompt as the dataset wrote it."""
        return self.sample.prompt


@dataclass(frozen=True)
class Score:
    """A judge's verdict on one answer; larger is better. Features explain the value."""

    value: float
    features: Mapping[str, float] = field(default_factory=dict)


class Judge:
    """Base of judges: a frozen dataclass of options. A reward function of your own is one too."""

    name: ClassVar[str]

    def score(self, answers: Sequence[Answer]) -> list[Score]:
        """One score per answer, in order."""
        raise TypeError(f"{type(self).__name__} cannot score single answers")


@dataclass(frozen=True)
class Column:
    """One column of a leaderboard: a value per prompt; the core adds mean and interval."""

    values: tuple[float, ...]
    doc: str = ""
    better: int = 0  # +1 larger is better, -1 smaller, 0 neither


class Benchmark:
    """Base of benchmarks, frozen dataclasses: prompts, and how answers become columns."""

    name: ClassVar[str]

    def prompts(self, seed: int) -> Iterable[PromptSample]:
        """The prompts every model answers."""
        raise TypeError(f"{type(self).__name__} defines no prompts")

    def measure(
        self,
        answers: Sequence[Sequence[Answer]],
        baseline: Sequence[Sequence[Answer]] | None,
    ) -> Mapping[str, Column]:
        """Columns for one model: `answers[i]` are its samples for prompt i, `baseline[i]` those
        of the model it is compared with (None: this is the baseline or there is none).
        """
        raise TypeError(f"{type(self).__name__} defines no measure")


class ScoredBenchmark(Benchmark):
    """A benchmark whose judge scores single answers.

    Columns: `win_rate` against the baseline, `score`, `length`, and the mean of every feature.
    A baseline scores .5 against itself by definition.
    """

    score_name: ClassVar[str] = "score"

    def judge(self) -> Judge:
        """Who scores. What it must know about a prompt travels in the sample's `meta`."""
        raise TypeError(f"{type(self).__name__} defines no judge")

    def measure(
        self,
        answers: Sequence[Sequence[Answer]],
        baseline: Sequence[Sequence[Answer]] | None,
    ) -> Mapping[str, Column]:
        """Score every answer and compare with the baseline's answers to the same prompt."""
        judge = self.judge()
        mine = [judge.score(samples) for samples in answers]
        other = mine if baseline is None else [judge.score(samples) for samples in baseline]
        return {
            WIN_RATE: Column(
                tuple(win_rate(_values(a), _values(b)) for a, b in zip(mine, other, strict=True)),
                "share of sample pairs won against the baseline, ties 1/2",
                better=1,
            ),
            self.score_name: Column(
                tuple(mean(_values(scores)) for scores in mine), "the judge's score", better=1
            ),
            "length": Column(
                tuple(mean([a.n_tokens for a in samples]) for samples in answers),
                "response tokens, stop token not counted",
            ),
            **_features(mine),
        }


def _values(scores: Sequence[Score]) -> list[float]:
    return [score.value for score in scores]


def _features(scores: Sequence[Sequence[Score]]) -> dict[str, Column]:
    names = dict.fromkeys(name for samples in scores for s in samples for name in s.features)
    return {
        name: Column(tuple(mean([s.features[name] for s in samples]) for samples in scores))
        for name in names
    }


def win_rate(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Share of all pairs (a, b) with a > b, ties 1/2."""
    wins = sum((a > b) + 0.5 * (a == b) for a in ours for b in theirs)
    return wins / (len(ours) * len(theirs))


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return math.fsum(values) / len(values)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean over prompts (sample standard deviation / sqrt(n)); 0 for n=1."""
    if len(values) < 2:
        return 0.0
    centre = mean(values)
    return math.sqrt(math.fsum((x - centre) ** 2 for x in values) / (len(values) - 1) / len(values))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % normal interval over prompts: (mean, low, high).

    Samples of one prompt are averaged first, so the prompt is the unit of resampling.
    """
    centre, half = mean(values), 1.959964 * standard_error(values)
    return centre, centre - half, centre + half
