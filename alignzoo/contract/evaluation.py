"""The contract of judges and benchmarks, and the formulas every scored benchmark shares."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any, ClassVar

from alignzoo.contract.datafiles import DataFile
from alignzoo.contract.types import PromptSample, PromptText, Response

WIN_RATE = "win_rate"  # the column that needs a baseline
Z = 1.959964  # of a normal distribution, 95 % lie within so many standard deviations


@dataclass(frozen=True)
class Answer:
    """A response to a prompt, ready to be judged."""

    sample: PromptSample
    response: Response  # to the last turn
    n_tokens: int  # tokens of `response`, the stop token not counted
    earlier: tuple[Response, ...] = ()  # to the turns before the last

    @property
    def prompt(self) -> PromptText:
        """The prompt as the dataset wrote it: the first turn."""
        return self.sample.prompt

    def without_special(self) -> Answer:
        """The same answer with texts that hold no special token."""
        bare = (response.without_special() for response in self.earlier)
        return replace(self, response=self.response.without_special(), earlier=tuple(bare))

    @property
    def turns(self) -> tuple[str, ...]:
        """The text of every reply, turn by turn."""
        return (*(response.text for response in self.earlier), self.response.text)


@dataclass(frozen=True)
class Score:
    """A judge's verdict on one answer; larger is better. Features explain the value."""

    value: float
    features: Mapping[str, float] = field(default_factory=dict)


class Judge:
    """Base of judges: a frozen dataclass of options. A reward function of your own is one too."""

    name: ClassVar[str]
    # Whether answers are shown to it with the special tokens that are content, such as <think>.
    reads_special: ClassVar[bool] = True
    # Whether compare(a, b) = 1 - compare(b, a); of a judge that does not claim it, both are asked.
    symmetric: ClassVar[bool] = True
    example_options: ClassVar[Mapping[str, Any]] = {}  # for `check`

    def score(self, answers: Sequence[Answer]) -> list[Score]:
        """One score per answer, in order."""
        raise TypeError(f"{type(self).__name__} cannot score single answers")

    def compare(self, pairs: Sequence[tuple[Answer, Answer]]) -> list[float]:
        """P(the first answer is the better one), 0 to 1, of each pair of answers to one prompt.

        Here 1 where `score` of the first is larger, 0 where it is smaller, and 1/2 for equal ones.
        """
        scores = self.score([answer for pair in pairs for answer in pair])
        both = zip(scores[::2], scores[1::2], strict=True)
        return [(a.value > b.value) + 0.5 * (a.value == b.value) for a, b in both]

    def seen(self, answers: Sequence[Answer]) -> Sequence[Answer]:
        """The answers as this judge reads them, for `score`."""
        return answers if self.reads_special else [a.without_special() for a in answers]

    def check_here(self) -> None:
        """Look for what the judge needs on this machine, such as a key, before anything trains.

        Asks nobody. Raises AlignzooError with one sentence that says what is missing.
        """

    @property
    def label(self) -> str:
        """How tables call it."""
        return self.name

    def identity(self) -> Mapping[str, Any]:
        """What decides the scores beside the plug-in's code: the options, unless a subclass knows
        better (the content of a file that an option names). JSON-able.
        """
        return asdict(self) if is_dataclass(self) else {}


def scores_alone(judge: type[Judge]) -> bool:
    """Whether judges of this class can score single answers."""
    return judge.score is not Judge.score


def compares_pairs(judge: type[Judge]) -> bool:
    """Whether judges of this class can say by themselves which of two answers is better."""
    return scores_alone(judge) or judge.compare is not Judge.compare


@dataclass(frozen=True)
class Estimate:
    """A figure that is not the mean of its prompts' values, with its 95 % interval.

    An interval that is a point, for want of spread, is shown as `honest` has it.
    """

    value: float
    low: float
    high: float
    error: float | None = None  # the standard error its authors print, where they have one


@dataclass(frozen=True)
class Column:
    """One column of a leaderboard: a value per prompt; the core adds mean and interval.

    None is a prompt without a verdict. With an `estimate`, that is shown, and the values serve
    views by prompt and category.
    """

    values: tuple[float | None, ...]
    doc: str = ""
    better: int = 0  # +1 larger is better, -1 smaller, 0 neither
    estimate: Estimate | None = None
    note: str = ""  # about this model's figure: a fitted constant, a warning, why there is none
    whole: float | None = None  # of shares: what they are shares of, 1 or 100 (percent)


class Benchmark:
    """Base of benchmarks, frozen dataclasses: prompts, and how answers become columns."""

    name: ClassVar[str]
    example_options: ClassVar[Mapping[str, Any]] = {}  # for `check`
    files: ClassVar[tuple[DataFile, ...]] = ()  # what it reads and alignzoo does not ship
    file_options: ClassVar[tuple[str, ...]] = ()  # options that name files; `settings` has digests

    def prompts(self, seed: int) -> Iterable[PromptSample]:
        """The prompts every model answers."""
        raise TypeError(f"{type(self).__name__} defines no prompts")

    def later_turns(self, prompt: PromptSample) -> Sequence[str]:
        """What the user says after the model's first reply, turn by turn; the model's own replies
        stay in the conversation.
        """
        return ()

    def sampling(self, prompt: PromptSample) -> Mapping[str, Any]:
        """Sampling settings the benchmark prescribes for a prompt, as `sampling:` writes them;
        what the recipe says itself goes before.
        """
        return {}

    def settings(self) -> Mapping[str, Any]:
        """What decides the numbers beside the options, e.g. digests of the files that were read."""
        return {}

    def measure(
        self,
        answers: Sequence[Sequence[Answer]],
        baseline: Sequence[Sequence[Answer]] | None,
    ) -> Mapping[str, Column]:
        """Columns for one model: `answers[i]` are its samples for prompt i, `baseline[i]` those
        of the model it is compared with (None: this is the baseline or there is none).
        """
        raise TypeError(f"{type(self).__name__} defines no measure")


class RewardBenchmark(Benchmark):
    """A benchmark of rewards: what they say of preference pairs, where nothing is sampled.

    Its block of a recipe names the pairs (`data:`) and the rewards (`rewards:`), the rows of the
    table; the core works out r(x, y) of every answer.
    """

    def judge_rewards(
        self, chosen: Sequence[float], rejected: Sequence[float]
    ) -> Mapping[str, Column]:
        """Columns of one reward, a value per pair: `chosen[i]` is r(x, y_w) of pair i."""
        raise TypeError(f"{type(self).__name__} defines no judge_rewards")


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
        mine = [judge.score(judge.seen(samples)) for samples in answers]
        other = mine if baseline is None else [judge.score(judge.seen(xs)) for xs in baseline]
        return {
            WIN_RATE: Column(
                tuple(win_rate(_values(a), _values(b)) for a, b in zip(mine, other, strict=True)),
                "share of sample pairs won against the baseline, ties 1/2",
                better=1,
                whole=1,
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


def bootstrap(
    n: int, statistic: Callable[[Sequence[int]], float], rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic under resampling n prompts with replacement.

    `statistic` gets the numbers of the drawn prompts, so that everything about one prompt (games,
    turns, samples) stays together. Draws for which it is not finite are left out. Prompts that are
    all alike give a point, which is no certainty: see `honest`.
    """
    noise = random.Random(seed)
    drawn = (statistic(noise.choices(range(n), k=n)) for _ in range(rounds))
    found = sorted(x for x in drawn if math.isfinite(x))
    if not found:
        return math.nan, math.nan
    return percentile(found, 0.025), percentile(found, 0.975)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between the neighbours of position share * (n - 1)."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % normal interval over prompts: (mean, low, high); a point where all prompts
    are alike, which is no certainty: see `honest`.

    Samples of one prompt are averaged first, so the prompt is the unit of resampling.
    """
    centre, half = mean(values), Z * standard_error(values)
    return centre, centre - half, centre + half


def honest(
    value: float, low: float, high: float, n: int, whole: float | None = None
) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of a figure over n prompts, where it is more than a point.

    A point comes from prompts that are all alike, which is no certainty. A share that is nothing
    or all of `whole` has Wilson's interval instead, with z = 1.96

        [0, z^2 / (n + z^2)] or [n / (n + z^2), 1] times `whole`,

    and any other figure has none. Source: Wilson (1927), doi:10.1080/01621459.1927.10502953.
    """
    if not math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12):
        return low, high
    if whole is None:
        return None, None
    rest = Z * Z / (n + Z * Z)
    if math.isclose(value, 0.0, abs_tol=1e-9 * whole):
        return 0.0, whole * rest
    if math.isclose(value, whole):
        return whole * (1 - rest), whole
    return None, None
