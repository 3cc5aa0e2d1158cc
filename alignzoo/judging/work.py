"""What is still to be asked, who waits for which reply, and how far the asking is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice

from tenacity import AsyncRetrying

from alignzoo.contract.errors import PluginError
from alignzoo.contract.verdicts import (
    AskedJudge,
    JudgeBusy,
    JudgedBenchmark,
    JudgeError,
    JudgeSession,
    Question,
    QuestionRefused,
    Reply,
    Usage,
)
from alignzoo.judging.journal import Answered, Entry, Journal, Lost
from alignzoo.judging.mute import EVALUATING, Remedies, mute
from alignzoo.judging.purse import Purse
from alignzoo.judging.read import NOTHING, Judged, Spent, blaming, by_another, follow

GIVE_UP = 20  # questions in a row that nobody answered: the judge is gone
MUTE = 20  # first replies without a verdict: no later one will hold any
BREAK = 0.01  # seconds until the purse is looked at again
BREATH = 64  # questions looked at before replies under way get a turn


@dataclass(frozen=True)
class Standing:
    """How far the asking is."""

    total: int  # questions
    done: int  # of them: have their last reply
    failed: int  # of them: their reply holds no verdict
    seconds: float = 0.0  # since this call began to ask
    settled: int = 0  # questions done since then
    spent: Spent = NOTHING  # since then
    unread: tuple[Reply, ...] = ()  # the first replies, as long as none holds a verdict

    def plus(self, judged: Judged) -> Standing:
        """With one question more that is done."""
        failed = self.failed + (judged.verdict is None)
        unread = self.unread
        if judged.reply and failed > self.done and len(unread) < MUTE:
            unread = (*unread, judged.reply)
        return replace(
            self, done=self.done + 1, failed=failed, unread=unread if failed > self.done else ()
        )

    @property
    def is_mute(self) -> bool:
        """Whether none of the first replies holds a verdict, and there are more to come."""
        return MUTE <= self.done == self.failed < self.total

    @property
    def cost(self) -> float | None:
        """Price of what this call has asked for; None: not known."""
        return self.spent.cost

    @property
    def cost_left(self) -> float | None:
        """Price of the rest at the present average; None: not known yet, or never."""
        return None if self.cost is None else self._left(self.cost)

    def _left(self, used: float) -> float | None:
        rest = self.total - self.done
        return used / self.settled * rest if self.settled else None if rest else 0.0


@dataclass(frozen=True)
class Task:
    """Questions to put to a judge, and where its replies are kept."""

    benchmark: JudgedBenchmark
    judge: AskedJudge
    questions: Callable[[], Iterator[Question]]
    journal: Journal
    again: bool  # also what has no readable reply
    report: Callable[[Standing], None]
    mute: bool = False  # whether the first replies may all lack a verdict
    purse: Purse = field(default_factory=Purse)
    remedies: Remedies = EVALUATING

    def survey(self) -> Standing:
        """How much of it an earlier call has done."""
        found, total = Standing(0, 0, 0), 0
        for question in self.questions():
            judged = follow(self.benchmark, question, self.journal)
            total += 1
            if not self.is_open(judged):
                found = found.plus(judged)
        return replace(found, total=total)

    def check_mute(self, standing: Standing) -> None:
        """Raises JudgeError when going on would be paid for in vain."""
        if standing.is_mute and not self.mute:
            raise mute(self.benchmark, self.judge, standing.unread, self.remedies)

    def is_open(self, judged: Judged) -> bool:
        """Whether the question is to be asked, or asked again."""
        if judged.reply is None:
            return True
        return (self.again and judged.verdict is None) or self.is_strange(judged.reply)

    def is_strange(self, reply: Reply) -> bool:
        """Whether it is of another model and the judge's options do not say what to do then."""
        return self.judge.other_models == "stop" and by_another(reply, self.journal)


class _Over(Exception):
    """The asking has come to an end: nothing is tried again."""


@dataclass
class Work:
    """A task under way. One thread touches it."""

    task: Task
    standing: Standing
    session: JudgeSession
    patient: AsyncRetrying
    put: Callable[[Entry], Awaitable[None]]
    waiting: dict[str, list[Question]] = field(default_factory=dict)  # digest asked -> on behalf of
    in_vain: int = 0  # questions in a row without a reply
    left: int = 0  # questions without a reply in all
    last: str = ""  # why the last of them has none
    fatal: Exception | None = None  # what ends the asking

    def __post_init__(self) -> None:
        self.rest = self.task.questions()
        self.turn = asyncio.Lock()
        self.over = asyncio.Event()
        self.patient = self.patient.copy(sleep=self._pause)
        self.start, self.began = self.task.journal.end, time.monotonic()

    async def run(self) -> None:
        """Keep as many batches under way as the judge allows, until nothing is left.

        What is under way when something ends the asking is waited for and kept. A question that
        nobody answers has failed, unless nobody answers any.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(self.task.judge.concurrency):
                group.create_task(self._worker())
        if self.fatal is not None:
            raise self.fatal
        if self.over.is_set() or (self.left and self.left == self.standing.done):
            raise self._shortfall()

    async def _worker(self) -> None:
        try:
            await self._batches()
        except _Over:
            pass
        except Exception as error:
            self.fatal = self.fatal or error
            self.over.set()

    async def _pause(self, seconds: float) -> None:
        """Wait for another attempt."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), seconds)
            raise _Over

    async def _batches(self) -> None:
        """One batch after the other: follow-ups first, then new questions."""
        size = self.task.judge.batch_size
        rest: list[Question] = []
        while not self.over.is_set() and (rest := [*rest, *await self._take(size - len(rest))]):
            batch, rest = rest[:size], rest[size:]
            rest = [*await self._try(batch), *rest]

    async def _try(self, batch: Sequence[Question]) -> list[Question]:
        """Ask a batch; returns the follow-ups. One that fails is asked question by question."""
        try:
            replies: Sequence[Reply] = await self.patient(self._replies, batch)
        except (JudgeBusy, QuestionRefused) as error:
            if len(batch) > 1:
                return await self._singly(batch)
            self._leave(batch[0], error)
            return []
        pairs = list(zip(batch, replies, strict=True))
        await asyncio.gather(*(self.put(Answered(q.digest, reply)) for q, reply in pairs))
        return [more for q, reply in pairs for more in self._settle(q, reply)]

    async def _singly(self, batch: Sequence[Question]) -> list[Question]:
        follow_ups: list[Question] = []
        for question in batch:
            if self.over.is_set():
                raise _Over
            follow_ups += await self._try([question])
        return follow_ups

    async def _replies(self, batch: Sequence[Question]) -> Sequence[Reply]:
        judge, purse = self.task.judge, self.task.purse
        name, most = judge.name, purse.most(judge, batch)
        while not purse.has_room(judge, most):
            await self._pause(BREAK)
        purse.held.append(most)
        came: Sequence[Reply] = ()
        try:
            with blaming(f"judge '{name}'"):
                came = replies = await self.session.replies(batch)
        except JudgeBusy as busy:
            if busy.usage is not None:
                came = (Reply(usage=busy.usage),)
                await self._pay(batch[0], busy.usage)
            raise
        finally:
            purse.settle(most, judge, came)
        if len(replies) != len(batch):
            raise PluginError(
                f"judge '{name}': {len(replies)} replies to {len(batch)} questions; `replies` "
                "must return one per question"
            )
        return replies

    async def _pay(self, asked: Question, usage: Usage) -> None:
        """Account for what a server takes although no reply came."""
        await self.put(Lost(asked.digest, usage))
        spent = self.standing.spent.plus([Reply(usage=usage)], self.task.judge)
        self.standing = replace(self.standing, spent=spent)

    async def _take(self, n: int) -> list[Question]:
        """The next questions that need a reply, at most n; none: nothing is left."""
        taken: list[Question] = []
        async with self.turn:
            while some := list(islice(self.rest, max(0, min(BREATH, n - len(taken))))):
                taken += [more for question in some for more in self._open(question)]
                await asyncio.sleep(0)
        return taken

    def _open(self, question: Question) -> Sequence[Question]:
        """What must be asked next about a question, unless it is under way for another one."""
        judged = follow(self.task.benchmark, question, self.task.journal)
        if self._is_new(judged.asked[-1:]) or not self.task.is_open(judged):
            self._count(judged)
            return ()
        behalf = self.waiting.setdefault(judged.asked[-1].digest, [])
        behalf.append(question)
        return judged.asked[-1:] if len(behalf) == 1 else ()

    def _is_new(self, asked: Sequence[Question]) -> bool:
        """Whether this call has got a reply to any of these, or has tried in vain."""
        journal = self.task.journal
        return any(q.digest in journal.left or journal.since(self.start, q.digest) for q in asked)

    def _settle(self, asked: Question, reply: Reply) -> list[Question]:
        """Account for a reply on disk; returns the follow-ups it leads to.

        Raises JudgeError when it ends the asking.
        """
        self.in_vain = 0
        spent = self.standing.spent.plus([reply], self.task.judge)
        self.standing = replace(self.standing, spent=spent)
        if self.task.is_strange(reply):
            raise self._two_judges(reply)
        behalf = self.waiting.pop(asked.digest)
        return [more for question in behalf for more in self._open(question)]

    def _count(self, judged: Judged) -> None:
        if not self._is_new(judged.asked):
            return  # the survey has counted it
        self.left += judged.asked[-1].digest in self.task.journal.left
        self.standing = replace(
            self.standing.plus(judged),
            settled=self.standing.settled + 1,
            seconds=time.monotonic() - self.began,
        )
        self.task.report(self.standing)
        self.task.check_mute(self.standing)

    def _leave(self, asked: Question, error: JudgeBusy | QuestionRefused) -> None:
        """Leave a question without a reply; too often in a row, and the asking is over."""
        tries = f"no reply in {self.task.judge.attempts} attempts: "
        self.in_vain += 1
        self.last = str(error)
        why = tries + self.last if isinstance(error, JudgeBusy) else self.last
        self.task.journal.left[asked.digest] = why
        for question in self.waiting.pop(asked.digest):
            self._open(question)
        if self.in_vain >= GIVE_UP:
            self.over.set()

    def _shortfall(self) -> JudgeError:
        missing = self.standing.total - self.standing.done + self.left
        return JudgeError(
            f"judge '{self.task.judge.name}': {missing} of {self.standing.total} questions got no "
            f"reply (last: {self.last}); the others are kept; run the same command again"
        )

    def _two_judges(self, reply: Reply) -> JudgeError:
        able = self.session.capabilities
        return JudgeError(
            f"judge '{self.task.judge.name}': {reply.model} answered a question, and "
            f"{able.served} the greeting: these are two judges; let the server answer with one "
            "and run the same command again, or say what the replies of others are: "
            f"`--set {EVALUATING.judge}.other_models=fail` (failed) or `count` (verdicts of one "
            "judge)"
        )
