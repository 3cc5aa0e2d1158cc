"""Reading verdicts out of kept replies: no network, in the order of the questions, repeatable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

from alignzoo.contract.errors import AlignzooError, PluginError
from alignzoo.contract.evaluation import Answer, Judge
from alignzoo.contract.replies import read_verdict
from alignzoo.contract.verdicts import (
    AskedJudge,
    JudgeBusy,
    JudgedBenchmark,
    Question,
    Reply,
    Usage,
    Verdict,
)
from alignzoo.judging.journal import Journal

TURNS = 8  # questions in a row about one thing; a benchmark that wants more never ends
NO_TOKENS = Usage(0, 0)


@dataclass(frozen=True)
class Judged:
    """A question and what became of it.

    Without a `reply`, the last of `asked` still waits for one. Without a `verdict`, the reply could
    not be read or says that there can be none.
    """

    asked: tuple[Question, ...]  # the question, then its follow-ups
    replies: tuple[Reply, ...]  # to these, as far as there are any
    verdict: Verdict | None
    billed: tuple[Reply, ...] = ()  # all that were ever paid for, once among all that are read

    @property
    def question(self) -> Question:
        """As the benchmark asks it; it has the id of the verdict."""
        return self.asked[0]

    @property
    def reply(self) -> Reply | None:
        """What the verdict is read in: the reply to the last question asked."""
        return self.replies[-1] if len(self.replies) == len(self.asked) else None


@dataclass(frozen=True)
class Spent:
    """Tokens and price of replies. Both are None as soon as those of one are not known."""

    usage: Usage | None = NO_TOKENS
    cost: float | None = 0.0

    def plus(self, replies: Iterable[Reply], judge: AskedJudge) -> Spent:
        """With these replies too. An error that no model computed costs nothing."""
        usage, cost = self.usage, self.cost
        for used in taken(replies):
            price = judge.cost(used) if used else None
            cost = None if cost is None or price is None else cost + price
            usage = usage and used and Usage(
                usage.prompt_tokens + used.prompt_tokens,
                usage.completion_tokens + used.completion_tokens,
            )  # fmt: skip
        return Spent(usage, cost)


def taken(replies: Iterable[Reply]) -> Iterator[Usage | None]:
    """The tokens of every reply that a model computed; None of one that does not say."""
    return (_known(reply) for reply in replies if _computed(reply))


def _computed(reply: Reply) -> bool:
    """Whether a model wrote it; a server that refuses a question asks none."""
    return reply.error is None or any((reply.usage, reply.text, reply.finish, reply.model))


def _known(reply: Reply) -> Usage | None:
    """What it cost; no prompt has 0 tokens, and no text: some servers count nothing."""
    used = reply.usage
    if used is None or not used.prompt_tokens or (reply.text and not used.completion_tokens):
        return None
    return used


NOTHING = Spent()


def read(
    benchmark: JudgedBenchmark, questions: Iterable[Question], journal: Journal
) -> Iterator[Judged]:
    """What the journal says about every question, in order; nobody is asked.

    Raises PluginError when the benchmark fails on a reply.
    """
    seen: set[str] = set()
    for question in questions:
        judged = follow(benchmark, question, journal)
        yield replace(judged, billed=tuple(_billed(benchmark, question, journal, seen)))


def follow(benchmark: JudgedBenchmark, question: Question, journal: Journal) -> Judged:
    """One question and its follow-ups, as far as there are replies."""
    asked: tuple[Question, ...] = (question,)
    replies: tuple[Reply, ...] = ()
    for _ in range(TURNS):
        reply = _last(asked[-1], journal)
        if reply is None:
            return Judged(asked, replies, None)
        replies = (*replies, reply)
        said = meaning(benchmark, asked[-1], reply)
        if not isinstance(said, Question):
            return Judged(asked, replies, said)
        asked = (*asked, said)
    raise PluginError(
        f"benchmark '{benchmark.name}': question {question.id} leads to more than {TURNS} "
        "follow-ups; `verdict` must come to an end"
    )


def _last(question: Question, journal: Journal) -> Reply | None:
    """The reply that counts; one of somebody else is an error, and so is none after all tries."""
    reply = journal.get(question.digest)
    if reply is None:
        why = journal.left.get(question.digest)
        return None if why is None else Reply(error=why)
    return _own(reply, journal)


def by_another(reply: Reply, journal: Journal) -> bool:
    """Whether it says that another model wrote it than the one the judge is."""
    named = journal.capabilities and journal.capabilities.served
    return bool(named and reply.model) and reply.model != named


def _own(reply: Reply, journal: Journal) -> Reply:
    if reply.error is not None or not by_another(reply, journal):
        return reply
    named = journal.capabilities and journal.capabilities.served
    return replace(reply, error=f"answered by {reply.model}, not by {named}")


def _billed(
    benchmark: JudgedBenchmark, question: Question, journal: Journal, seen: set[str]
) -> Iterator[Reply]:
    """Every reply to a question and to whatever any of them led to, unless it was seen before."""
    if question.digest in seen:
        return
    seen.add(question.digest)
    for reply in journal.every(question.digest):
        yield reply
        said = meaning(benchmark, question, _own(reply, journal))
        if isinstance(said, Question):
            yield from _billed(benchmark, said, journal, seen)


def meaning(
    benchmark: JudgedBenchmark, question: Question, reply: Reply
) -> Verdict | Question | None:
    """What the benchmark reads in a reply: in its final words, or in a judge's scores.

    Raises PluginError when it fails, or finds a value that is not finite.
    """
    if reply.error is not None or not _fits(question, reply.scores):
        return None
    with blaming(f"benchmark '{benchmark.name}': reply to question {question.id}"):
        said = (
            read_verdict(benchmark, question, reply)
            if reply.scores is None
            else benchmark.scored(question, reply.scores)
        )
    if isinstance(said, Verdict) and not math.isfinite(said.value):
        raise PluginError(
            f"benchmark '{benchmark.name}': the verdict on question {question.id} is {said.value}; "
            "`verdict` must return None where there is none"
        )
    return said


def _fits(question: Question, scores: Sequence[float] | None) -> bool:
    """Whether scores, if there are any, are one number per answer shown."""
    return scores is None or (
        len(scores) == len(question.answers) and all(map(math.isfinite, scores))
    )


def score(
    benchmark: JudgedBenchmark,
    judge: Judge,
    questions: Iterable[Question],
    batch: int = 64,
) -> Iterator[Judged]:
    """Questions to a judge that scores single answers, `batch` questions at once, in order.

    Raises PluginError when the judge does not return one finite score per answer.
    """
    rest = iter(questions)
    while some := list(islice(rest, batch)):
        values = iter(_scores(judge, [answer for q in some for answer in q.answers]))
        for question in some:
            reply = Reply(scores=tuple(islice(values, len(question.answers))))
            said = meaning(benchmark, question, reply)
            yield Judged((question,), (reply,), said if isinstance(said, Verdict) else None)


def _scores(judge: Judge, answers: Sequence[Answer]) -> list[float]:
    with blaming(f"judge '{judge.name}'"):
        scores = judge.score(judge.seen(answers))
    if len(scores) != len(answers):
        raise PluginError(
            f"judge '{judge.name}': {len(scores)} scores for {len(answers)} answers; `score` must "
            "return one per answer"
        )
    values = [score.value for score in scores]
    if not all(map(math.isfinite, values)):
        raise PluginError(f"judge '{judge.name}': a score is not finite")
    return values


@contextmanager
def blaming(whom: str) -> Iterator[None]:
    """Turn what a plug-in did not mean to raise into a PluginError that names it."""
    try:
        yield
    except (AlignzooError, JudgeBusy):
        raise
    except Exception as error:
        raise PluginError(f"{whom}: {type(error).__name__}: {error}") from error
