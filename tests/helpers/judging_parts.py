"""A judge and a benchmark of a few lines each, for tests of the asking."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from alignzoo import (
    AskedJudge,
    Capabilities,
    JudgedBenchmark,
    PromptSample,
    Question,
    Reply,
    Response,
    Usage,
    Verdict,
)
from alignzoo.contract.evaluation import Answer
from alignzoo.judging import Patience, ask, open_journal, read

QUICK = Patience(first=0.001, longest=0.01)
GRADE = re.compile(r"\[\[(\d+)\]\]")
USAGE = Usage(10, 2)
ABLE = Capabilities("teacher-1")


def question(n, text=None, **more):
    """Question n; equal texts make equal questions."""
    sample = PromptSample(f"prompt {n}")
    answer = Answer(sample, Response(f"answer {n}"), 2)
    words = f"grade {n}" if text is None else text
    return Question(str(n), n, (answer,), ({"role": "user", "content": words},), **more)


def questions(n):
    """A callable that makes n questions anew each time, as `ask` wants it."""
    return lambda: (question(i) for i in range(n))


def said(asked):
    """What is asked, in words."""
    return asked.messages[-1]["content"]


@dataclass(frozen=True)
class Grades(JudgedBenchmark):
    """Reads [[7]]. A reply of "hm" is followed up."""

    name = "grades"
    needs: int = 0

    @property
    def top_logprobs(self):
        return self.needs

    def verdict(self, question, reply):
        if reply.text == "hm":
            more = (*question.messages, {"role": "user", "content": said(question) + "!"})
            return replace(question, messages=more)
        found = GRADE.search(reply.text)
        return Verdict(float(found[1]), label=found[1]) if found else None


@dataclass(frozen=True)
class Teacher(AskedJudge):
    """Says what `script` holds for the words asked; an exception is raised, a list is gone through.

    Everything else gets [[5]]. It keeps what it was asked in `asked`.
    """

    name = "teacher"
    script: Mapping = field(default_factory=dict)
    batch_size: int = 1
    concurrency: int = 4
    attempts: int = 3
    seconds: float = 0.0
    replies_lost: int = 0  # of every batch
    able: Capabilities = ABLE
    asked: list = field(default_factory=list, compare=False)
    most: Counter = field(default_factory=Counter, compare=False)

    def identity(self):
        return {"model": "teacher-1"}

    def cost(self, usage):
        return usage.completion_tokens / 100

    @asynccontextmanager
    async def connect(self):
        self.most["connected"] += 1
        line = self.script.get("connect")
        line = line.pop(0) if isinstance(line, list) and line else line
        if isinstance(line, BaseException):
            raise line
        yield Desk(self, self.able)


@dataclass
class Desk:
    """Where the teacher sits."""

    teacher: Teacher
    capabilities: Capabilities

    async def replies(self, questions):
        most = self.teacher.most
        most["now"] += 1
        most["at once"] = max(most["at once"], most["now"])
        try:
            await asyncio.sleep(self.teacher.seconds)
            return [self.reply(q) for q in questions[self.teacher.replies_lost :]]
        finally:
            most["now"] -= 1

    def reply(self, question):
        words = said(question)
        self.teacher.asked.append(words)
        line = self.teacher.script.get(words, "[[5]]")
        if isinstance(line, list):
            line = line.pop(0) if line else "[[5]]"
        if callable(line):
            line = line()
        if isinstance(line, BaseException):
            raise line
        return line if isinstance(line, Reply) else Reply(line, usage=USAGE, finish="stop")


def put(judge, some, benchmark=None, again=False):
    """Ask with a journal of its own, as a new process would; returns the last standing."""
    told = []
    benchmark = benchmark or Grades()
    with open_journal(judge) as journal:
        ask(benchmark, judge, some, journal, again=again, report=told.append, patience=QUICK)
    return told[-1]


def values(judge, some, benchmark=None):
    """What can be read in the journal afterwards: a value, None, or "missing"."""
    with open_journal(judge) as journal:
        return [
            "missing" if one.reply is None else one.verdict and one.verdict.value
            for one in read(benchmark or Grades(), some(), journal)
        ]
