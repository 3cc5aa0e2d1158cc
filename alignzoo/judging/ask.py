"""Putting questions to a judge until every one has a reply on disk."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from random import SystemRandom

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from alignzoo.contract.errors import Interrupted
from alignzoo.contract.verdicts import (
    AskedJudge,
    Capabilities,
    JudgeBusy,
    JudgedBenchmark,
    JudgeError,
    JudgeSession,
    Question,
)
from alignzoo.judging.commit import group_commit
from alignzoo.judging.journal import Journal
from alignzoo.judging.mute import EVALUATING, Remedies, spoken
from alignzoo.judging.work import Standing, Task, Work

__all__ = ["Patience", "Standing", "ask", "meet"]


@dataclass(frozen=True)
class Patience:
    """How long to wait after the n-th attempt in vain, in seconds.

    wait(n) = U(1/2, 1) min(longest, first 2^(n-1)), but not less than the server asks for
    (itself cut at `longest`) plus U(0, first), so that those told the same do not return at once.
    """

    first: float = 1.0
    longest: float = 60.0
    mute: bool = False  # also with a judge whose first replies all lack a verdict

    def __call__(self, state: RetryCallState) -> float:
        """The wait, as tenacity wants to know it."""
        chance = SystemRandom()  # the seeded generators belong to the runs
        grown = min(self.longest, self.first * 2.0 ** (state.attempt_number - 1))
        wait = chance.uniform(0.5, 1) * grown
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, JudgeBusy) and error.after is not None:
            wait = max(wait, min(self.longest, error.after) + chance.uniform(0, self.first))
        return wait


PATIENT = Patience()


def ask(
    benchmark: JudgedBenchmark,
    judge: AskedJudge,
    questions: Callable[[], Iterator[Question]],
    journal: Journal,
    *,
    again: bool,
    report: Callable[[Standing], None],
    patience: Patience = PATIENT,
    remedies: Remedies = EVALUATING,
) -> Capabilities:
    """Ask what the journal has no reply to, and with `again` what it has no readable reply to.

    Every raw reply is on disk before it is read; follow-ups are asked in turn. The judge is not
    contacted when nothing is missing and its capabilities are known. `questions` is gone through
    twice and never held. SIGINT and SIGTERM keep what has come. A question that the judge refuses,
    or that has no reply after all attempts, has failed: `read` says why.

    Raises JudgeError when the judge cannot be used, when it answers no question or many in a row
    not, when another model answers in its place, and when the first replies all lack a verdict;
    PluginError when judge or benchmark break their contract. Everything that came is kept.
    """
    task = Task(benchmark, judge, questions, journal, again, report, patience.mute,
                remedies=remedies)  # fmt: skip
    return put(task, patience)


def put(task: Task, patience: Patience = PATIENT) -> Capabilities:
    """`ask`, given as one value; JudgeError too before what may be spent is passed."""
    standing, journal = task.survey(), task.journal
    task.report(standing)
    task.check_mute(standing)
    if standing.done == standing.total and journal.capabilities is not None:
        return journal.capabilities
    asked: list[int] = []  # signals that asked to stop
    try:
        with spoken(task.remedies):
            return asyncio.run(_ask(task, standing, patience, asked))
    except asyncio.CancelledError:
        raise Interrupted(asked[0] if asked else signal.SIGINT) from None


def meet(
    benchmark: JudgedBenchmark, judge: AskedJudge, journal: Journal, patience: Patience = PATIENT
) -> None:
    """Connect to a judge whose journal knows nothing of it, and note what it can do.

    Raises JudgeError as `ask` does, before anything was sampled or asked for.
    """
    if journal.capabilities is not None:
        return
    asked: list[int] = []
    try:
        asyncio.run(_meet(benchmark, judge, journal, _patient(judge, patience), asked))
    except asyncio.CancelledError:
        raise Interrupted(asked[0] if asked else signal.SIGINT) from None


async def _meet(
    benchmark: JudgedBenchmark,
    judge: AskedJudge,
    journal: Journal,
    patient: AsyncRetrying,
    asked: list[int],
) -> None:
    with _stopped_by_signals(asked):
        async with _connected(judge, patient) as session:
            _check(benchmark, judge, session.capabilities)
            journal.append([session.capabilities])


async def _ask(
    task: Task, standing: Standing, patience: Patience, asked: list[int]
) -> Capabilities:
    patient = _patient(task.judge, patience)
    with _stopped_by_signals(asked):
        async with (
            group_commit(task.journal.append) as put,
            _connected(task.judge, patient) as session,
        ):
            _check(task.benchmark, task.judge, session.capabilities)
            _check_same(task.judge, session.capabilities, task.journal)
            if session.capabilities != task.journal.capabilities:
                await put(session.capabilities)
            work = Work(task, standing, session, patient, put)
            await work.run()
            able = session.capabilities
        if work.in_vain:  # the last questions are to blame only if the judge is still there
            async with _connected(task.judge, patient):
                pass
        return able


def _patient(judge: AskedJudge, patience: Patience) -> AsyncRetrying:
    return AsyncRetrying(
        retry=retry_if_exception_type(JudgeBusy),
        stop=stop_after_attempt(judge.attempts),
        wait=patience,
        sleep=asyncio.sleep,
        reraise=True,
    )


@asynccontextmanager
async def _connected(judge: AskedJudge, patient: AsyncRetrying) -> AsyncIterator[JudgeSession]:
    async with AsyncExitStack() as stack:

        async def enter() -> JudgeSession:
            return await stack.enter_async_context(judge.connect())

        try:
            session: JudgeSession = await patient(enter)
        except JudgeBusy as busy:
            raise JudgeError(
                f"judge '{judge.name}' does not answer ({busy}); "
                "run the same command again when it does"
            ) from busy
        yield session


def _check(benchmark: JudgedBenchmark, judge: AskedJudge, able: Capabilities) -> None:
    if benchmark.top_logprobs > able.top_logprobs:
        returns = f"at most {able.top_logprobs}" if able.top_logprobs else "none"
        raise JudgeError(
            f"judge '{judge.name}' ({able.model}): benchmark '{benchmark.name}' needs the "
            f"{benchmark.top_logprobs} likeliest first tokens with their log-probs and the judge "
            f"returns {returns}; choose another judge, or options of the benchmark that read "
            f"the judge's words (`alignzoo show {benchmark.name}`)"
        )


def _check_same(judge: AskedJudge, able: Capabilities, journal: Journal) -> None:
    """Replies of two models under one name must not meet in one result."""
    before = journal.capabilities
    if before is None or not len(journal):
        return
    then, now = map(_called, (before, able))
    others = before.served and able.served and before.served != able.served
    if (before.model, before.revision) != (able.model, able.revision) or others:
        raise JudgeError(
            f"judge '{judge.name}' is now {now}, the replies kept so far are by {then}; name the "
            "revision in the judge's options, which keeps the replies of both apart"
        )


def _called(able: Capabilities) -> str:
    names = dict.fromkeys(name for name in (able.revision, able.served) if name)
    return f"{able.model} ({', '.join(names) or 'no revision'})"


@contextmanager
def _stopped_by_signals(asked: list[int]) -> Iterator[None]:
    """The first SIGINT or SIGTERM ends the asking and is noted; the next goes to whoever handled
    signals before. Outside the main thread they are left alone.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: signal.Signals) -> None:
        earlier = before[number]
        if asked and callable(earlier):
            earlier(number, None)
        asked.append(number)
        if task is not None:
            task.cancel()

    heard = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    try:
        for number in heard:
            loop.add_signal_handler(number, stop, number)
    except (ValueError, RuntimeError):
        yield
        return
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number] or signal.SIG_DFL)
