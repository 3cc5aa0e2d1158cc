"""Examining a judge: pairs that people compared, put to it as a benchmark's questions."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from alignzoo.contract.errors import DataError
from alignzoo.contract.evaluation import Answer, Judge
from alignzoo.contract.types import PromptSample, Response
from alignzoo.contract.verdicts import AskedJudge, JudgedBenchmark, JudgeError, Question, Verdict
from alignzoo.judging.ask import PATIENT, Patience, Standing, ask
from alignzoo.judging.journal import open_journal
from alignzoo.judging.mute import EVALUATING, Remedies, quoted
from alignzoo.judging.quality.figures import TIE, HumanPair, Labels
from alignzoo.judging.read import Judged, Spent, read, score


@dataclass(frozen=True)
class Examination:
    """What the judge is asked: every pair, `repeats` times.

    output_1 is the baseline's answer and output_2 the candidate's, so that a verdict for the
    candidate is a label near 2.
    """

    benchmark: JudgedBenchmark
    pairs: Sequence[HumanPair]
    repeats: int = 1

    def questions(self) -> Iterator[Question]:
        """The benchmark's questions about every pair; those of one repeat come together.

        Raises DataError when the benchmark does not compare two answers.
        """
        if not self.benchmark.compares:
            raise DataError(
                f"{self.benchmark.name} does not compare two answers with these options; "
                "people's preferences can only be held against a benchmark that does"
            )
        prompts = [
            PromptSample(p.instruction, {**p.meta, "id": i}) for i, p in enumerate(self.pairs)
        ]
        texts = [(p.output_1, p.output_2) for p in self.pairs]
        baseline = [_answer(prompt, one) for prompt, (one, _) in zip(prompts, texts, strict=True)]
        answers = [_answer(prompt, two) for prompt, (_, two) in zip(prompts, texts, strict=True)]
        for number in range(self.repeats):
            for question in self.benchmark.questions(answers, baseline):
                yield self._repeated(question, number)

    def _repeated(self, question: Question, number: int) -> Question:
        """The first repeat keeps the number, and so the reply, that a plain evaluation has."""
        name = f"{question.id}#{number + 1}" if number else question.id
        return replace(question, id=name, repeat=question.repeat * self.repeats + number)

    def labels(self, judged: Iterable[Judged]) -> dict[str, tuple[float, ...]]:
        """The judge's labels by the key of the pair, 1 + the weighted mean of its verdicts.

        A repeat of which a verdict is missing gives no label. Equal outputs about which the
        benchmark asks nothing are a tie.
        """
        said: dict[tuple[int, int], list[Verdict | None]] = defaultdict(list)
        for one in judged:
            said[one.question.index, one.question.repeat % self.repeats].append(one.verdict)
        found: dict[str, tuple[float, ...]] = {}
        for index, pair in enumerate(self.pairs):
            games = [said.get((index, number)) for number in range(self.repeats)]
            labels = [_untold(pair) if game is None else _label(game) for game in games]
            found[pair.key] = tuple(label for label in labels if label is not None)
        return found


@dataclass(frozen=True)
class Examined:
    """What came of it."""

    labels: Labels
    judged: int  # questions
    parsed: int  # of them: with a verdict
    model: str | None = None  # that answered, as its server calls it


def examine(
    examination: Examination,
    judge: Judge,
    *,
    again: bool = False,
    report: Callable[[Standing], None] = lambda standing: None,
    patience: Patience = PATIENT,
    remedies: Remedies = EVALUATING,
) -> Examined:
    """Put every pair to the judge; what it said before is not asked again.

    Raises JudgeError when the judge cannot be used or not one reply holds a verdict, DataError
    when the benchmark does not compare answers; what came is kept.
    """
    if not isinstance(judge, AskedJudge):
        began = time.monotonic()
        found = list(score(examination.benchmark, judge, examination.questions()))
        return _examined(examination, found, 0.0, time.monotonic() - began, remedies)
    standings: list[Standing] = []

    def told(standing: Standing) -> None:
        standings[:] = [standing]
        report(standing)

    with open_journal(judge) as journal:
        able = ask(examination.benchmark, judge, examination.questions, journal,
                   again=again, report=told, patience=patience, remedies=remedies)  # fmt: skip
        found = list(read(examination.benchmark, examination.questions(), journal))
    spent = Spent()
    for one in found:
        spent = spent.plus(one.billed, judge)
    seconds = _seconds(standings[-1], len(found))
    return replace(_examined(examination, found, spent.cost, seconds, remedies), model=able.model)


def _examined(
    examination: Examination,
    found: Sequence[Judged],
    cost: float | None,
    seconds: float | None,
    remedies: Remedies,
) -> Examined:
    parsed = sum(one.verdict is not None for one in found)
    if found and not parsed:
        reply = found[0].reply
        said = "no reply" if reply is None else quoted(examination.benchmark, reply, remedies)
        raise JudgeError(
            f"not one of {len(found)} replies holds a verdict; the first: {said}; every reply is "
            "kept, and --rejudge-failed asks again"
        )
    rows = len(examination.pairs) * examination.repeats
    labels = Labels(examination.labels(found), _each(cost, rows), _each(seconds, rows))
    return Examined(labels, len(found), parsed)


def _seconds(standing: Standing, questions: int) -> float | None:
    """Time for all questions at the pace of those asked now; None: all were answered before."""
    if not standing.settled:
        return None
    return standing.seconds / standing.settled * questions


def _each(total: float | None, rows: int) -> float | None:
    return None if total is None or not rows else total / rows


def _answer(prompt: PromptSample, text: str) -> Answer:
    return Answer(prompt, Response(text), len(text.split()))


def _untold(pair: HumanPair) -> float | None:
    return TIE if pair.output_1 == pair.output_2 else None


def _label(verdicts: Sequence[Verdict | None]) -> float | None:
    told = [verdict for verdict in verdicts if verdict is not None]
    weight = sum(verdict.weight for verdict in told)
    if len(told) < len(verdicts) or not weight:
        return None
    return 1 + sum(verdict.weight * verdict.value for verdict in told) / weight
