"""What is still to be asked, who waits for which reply, and how far the asking is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
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
    Reply,
)
from alignzoo.judging.journal import Answered, Entry, Journal
from alignzoo.judging.read import NOTHING, Judged, Spent, blaming, follow

GIVE_UP = 20  # questions in a row whose attempts were all in vain: the judge is gone
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

    @property
    def cost(self) -> float | None:
        """Price of what this call has asked for; None: not known."""
        return self.spent.cost

    @property
    def cost_left(self) -> float | None:
        """Price of the rest at the present average; None: not known yet, or never."""
        return None if self.cost is None else self._left(self.cost)

    @property
    def seconds_left(self) -> float | None:
        """Time for the rest at the present average; None: not known yet."""
        return self._left(self.seconds)

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

    def survey(self) -> Standing:
        """How much of it an earlier call has done."""
        total = done = failed = 0
        for question in self.questions():
            judged = follow(self.benchmark, question, self.journal)
            total += 1
            if judged.reply is not None and not (self.again and judged.verdict is None):
                done += 1
                failed += judged.verdict is None
        return Standing(total, done, failed)


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
    last: str = ""  # why the last of them has none

    def __post_init__(self) -> None:
        self.rest = self.task.questions()
        self.turn = asyncio.Lock()
        self.start, self.began = self.task.journal.end, time.monotonic()

    async def run(self) -> None:
        """Keep as many batches under way as the judge allows, until nothing is left.

        Raises JudgeError when a question has no reply at the end.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.task.judge.concurrency):
                    group.create_task(self._batches())
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__
        if self.standing.done < self.standing.total:
            raise self._shortfall()

    async def _batches(self) -> None:
        """One batch after the other: follow-ups first, then new questions."""
        size = self.task.judge.batch_size
        rest: list[Question] = []
        while rest := [*rest, *await self._take(size - len(rest))]:
            batch, rest = rest[:size], rest[size:]
            try:
                replies: Sequence[Reply] = await self.patient(self._replies, batch)
            except JudgeBusy as busy:
                self._leave(batch, busy)
                continue
            pairs = list(zip(batch, replies, strict=True))
            await asyncio.gather(*(self.put(Answered(q.digest, reply)) for q, reply in pairs))
            rest = [more for q, reply in pairs for more in self._settle(q, reply)] + rest

    async def _replies(self, batch: Sequence[Question]) -> Sequence[Reply]:
        name = self.task.judge.name
        with blaming(f"judge '{name}'"):
            replies = await self.session.replies(batch)
        if len(replies) != len(batch):
            raise PluginError(
                f"judge '{name}': {len(replies)} replies to {len(batch)} questions; `replies` "
                "must return one per question"
            )
        return replies

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
        last = judged.asked[-1].digest
        wanted = self.task.again and judged.verdict is None and not self._is_new(judged.asked[-1:])
        if judged.reply is not None and not wanted:
            self._count(judged)
            return ()
        behalf = self.waiting.setdefault(last, [])
        behalf.append(question)
        return judged.asked[-1:] if len(behalf) == 1 else ()

    def _is_new(self, asked: Sequence[Question]) -> bool:
        """Whether this call has got a reply to any of these."""
        return any(self.task.journal.since(self.start, question.digest) for question in asked)

    def _settle(self, asked: Question, reply: Reply) -> list[Question]:
        """Account for a reply on disk; returns the follow-ups it leads to."""
        self.in_vain = 0
        spent = self.standing.spent.plus([reply], self.task.judge)
        self.standing = replace(self.standing, spent=spent)
        behalf = self.waiting.pop(asked.digest)
        return [more for question in behalf for more in self._open(question)]

    def _count(self, judged: Judged) -> None:
        if not self._is_new(judged.asked):
            return  # the survey has counted it
        now = self.standing
        self.standing = replace(
            now,
            done=now.done + 1,
            failed=now.failed + (judged.verdict is None),
            settled=now.settled + 1,
            seconds=time.monotonic() - self.began,
        )
        self.task.report(self.standing)

    def _leave(self, batch: Sequence[Question], busy: JudgeBusy) -> None:
        """Leave questions without a reply.

        Raises JudgeError when that has happened too often in a row.
        """
        for question in batch:
            del self.waiting[question.digest]
        self.in_vain += len(batch)
        self.last = str(busy)
        if self.in_vain >= GIVE_UP:
            raise self._shortfall()

    def _shortfall(self) -> JudgeError:
        missing = self.standing.total - self.standing.done
        return JudgeError(
            f"judge '{self.task.judge.name}': {missing} of {self.standing.total} questions got no "
            f"reply (last: {self.last}); the others are kept; run the same command again"
        )
