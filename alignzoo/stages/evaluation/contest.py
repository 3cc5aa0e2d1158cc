"""What judges are shown of one model: its answers beside the baseline's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from alignzoo.contract.errors import DataError, UsageError
from alignzoo.contract.evaluation import Answer, Judge
from alignzoo.contract.types import PromptSample
from alignzoo.contract.verdicts import AskedJudge, JudgedBenchmark, Question, Verdict
from alignzoo.engine.parallel.exchange import everyone
from alignzoo.judging import meet, open_journal
from alignzoo.judging.mute import Remedies, evaluating, spoken
from alignzoo.judging.outputs import answered, match, read_outputs
from alignzoo.recipe.blocks import EvaluateSpec
from alignzoo.recipe.options import build_options
from alignzoo.stages.context import StageContext
from alignzoo.stages.evaluation.answers import (
    Asked,
    asked,
    decoding,
    is_outputs,
    read_answers,
    sampled,
)


@dataclass(frozen=True)
class Contest:
    """What is judged: a model's answers beside the baseline's."""

    benchmark: JudgedBenchmark
    prompts: Sequence[PromptSample]
    answers: Sequence[Answer]
    baseline: Sequence[Answer] | None
    is_baseline: bool
    places: Sequence[int] = ()  # of the prompts in what the baseline's own evaluation kept
    decoding: str = ""  # how the answers came about

    def questions(self) -> Iterator[Question]:
        """Everything to ask; the baseline against itself is a tie by definition."""
        for question in self.benchmark.questions(self.answers, self.baseline):
            if not (self.is_baseline and len(question.answers) > 1):
                yield question

    def ties(self) -> dict[str, Verdict]:
        """The verdicts that need no judge."""
        if not self.is_baseline:
            return {}
        every = self.benchmark.questions(self.answers, self.baseline)
        return {q.id: Verdict(0.5, label="itself") for q in every if len(q.answers) > 1}


@dataclass(frozen=True)
class Drawn:
    """The prompts that count, before anything is sampled."""

    questions: Sequence[Asked]
    theirs: Sequence[Answer] | None  # a finished baseline's answers to them
    places: Sequence[int]  # of the prompts in what the baseline's own evaluation kept


def contest_of(
    spec: EvaluateSpec, model: str, context: StageContext, baseline: Path | None
) -> Contest | None:
    """The contest of one model; None on all ranks but 0, which have sampled their share.

    Raises DataError when there are no prompts or no answers, UsageError when a baseline is missing,
    JudgeError when something is to be sampled and a judge that nobody knows yet cannot be used.
    """
    benchmark: JudgedBenchmark = build_options(
        context.registry.find("benchmark", spec.benchmark), spec.with_
    )
    crew = everyone()
    drawn = crew.from_main(lambda: _drawn(benchmark, spec, model, context, baseline))
    questions = drawn.questions
    recorded = is_outputs(model, context)
    greet = partial(_meet_judges, benchmark, spec, context)
    folder = None if recorded else sampled(model, questions, spec, context, greet)
    if not crew.is_main:
        return None
    prompts = [question.prompt for question in questions]
    if folder is None:
        answers = match(read_outputs(Path(model)), prompts, model, context.keys)
    else:
        answers = read_answers(folder)
    how = "outputs file" if recorded else decoding(questions)
    own = model == spec.baseline
    theirs = drawn.theirs
    if theirs is None:
        theirs = answers if own else benchmark.baseline_answers(prompts)
    if theirs is None and benchmark.compares:
        raise UsageError(f"{spec.benchmark} compares two models; name the other with `baseline`")
    return Contest(benchmark, prompts, answers, theirs, own, drawn.places, how)


def _drawn(
    benchmark: JudgedBenchmark,
    spec: EvaluateSpec,
    model: str,
    context: StageContext,
    baseline: Path | None,
) -> Drawn:
    every = list(islice(benchmark.prompts(context.seed), spec.limit))
    if not every:
        raise DataError(f"benchmark '{spec.benchmark}' has no prompts with these options")
    numbers = _answered(spec, model, every, context)
    theirs: Sequence[Answer] | None = None
    places: Sequence[int] = ()
    if baseline:
        there = {n: i for i, n in enumerate(_answered(spec, str(spec.baseline), every, context))}
        numbers = [n for n in numbers if n in there]
        places = [there[n] for n in numbers]
        other = read_answers(baseline)
        theirs = [other[place] for place in places]
    if not numbers:
        raise DataError(f"{model}: answers none of the {len(every)} prompts that count")
    if missing := len(every) - len(numbers):
        context.progress.note(f"{context.name}: {missing} of {len(every)} prompts left out")
    return Drawn(asked([every[n] for n in numbers], spec, benchmark), theirs, places)


def _answered(
    spec: EvaluateSpec, model: str, prompts: Sequence[PromptSample], context: StageContext
) -> Sequence[int]:
    """The numbers of the prompts a model answers: all, unless its file may leave some out."""
    if not (spec.partial and is_outputs(model, context)):
        return range(len(prompts))
    return answered(read_outputs(Path(model)), prompts)


def remedies_of(spec: EvaluateSpec, context: StageContext) -> list[Remedies]:
    """How the block's keys are changed, for every judge of it."""
    several = len(spec.judge) > 1
    places = [f"judge.{k}.with" if several else "judge.with" for k in range(len(spec.judge))]
    return [evaluating(context.keys, place) for place in places]


def _meet_judges(benchmark: JudgedBenchmark, spec: EvaluateSpec, context: StageContext) -> None:
    """Try the judges that nobody has met yet, so that a missing key is not found after sampling."""
    for chosen, remedies in zip(spec.judge, remedies_of(spec, context), strict=True):
        judge: Judge = build_options(context.registry.find("judge", chosen.name), chosen.with_)
        if isinstance(judge, AskedJudge):
            with open_journal(judge) as journal, spoken(remedies):
                meet(benchmark, judge, journal)
