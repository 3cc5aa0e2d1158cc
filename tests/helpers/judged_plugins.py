"""A judged benchmark and judges small enough to know every verdict by heart."""

from __future__ import annotations

import re
import types
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from alignzoo import (
    AskedJudge,
    Capabilities,
    Column,
    Judge,
    JudgedBenchmark,
    JudgeError,
    PromptSample,
    Question,
    Reply,
    Score,
    Usage,
    Verdict,
    hookimpl,
    option,
)
from alignzoo.recipe.registry import Plugin, build_registry

ASKED = []  # ids of the questions that the judges of this module were put
BROKEN = []  # an error for the next connection


@dataclass(frozen=True)
class Longer(JudgedBenchmark):
    """Which of two answers is longer; the judge says FIRST or SECOND."""

    name = "longer"
    size: int = option(4, "prompts", gt=0)

    def prompts(self, seed):
        return [PromptSample(f"prompt {i}", {"id": str(i)}) for i in range(self.size)]

    def sampling(self, prompt):
        return {"temperature": 0.0, "max_new_tokens": 8}

    def questions(self, answers, baseline):
        for i, (own, other) in enumerate(zip(answers, baseline, strict=True)):
            text = f"{own.prompt}|{other.response.text}|{own.response.text}"
            messages = ({"role": "user", "content": text},)
            yield Question(f"{i}", i, (other, own), messages, candidate=1)

    def verdict(self, question, reply):
        if reply.text == "again":
            return replace(question, id=f"{question.id}+", repeat=question.repeat + 1)
        found = re.fullmatch("FIRST|SECOND", reply.text)
        return Verdict(float(found[0] == "SECOND"), label=found[0]) if found else None

    def columns(self, answers, baseline, verdicts):
        found = {int(key.rstrip("+")): verdict.value for key, verdict in verdicts.items()}
        values = tuple(found.get(i) for i in range(len(answers)))
        return {"win_rate": Column(values, "share of prompts won", better=1)}


@dataclass(frozen=True)
class LongerTwice(Longer):
    """The same, asked in both orders."""

    name = "longer_twice"

    def questions(self, answers, baseline):
        for place in (0, 1):
            shown = (baseline, answers) if place else (answers, baseline)
            for question in super().questions(shown[1], shown[0]):
                yield replace(question, id=f"{question.id}/{place}", candidate=place)

    def verdict(self, question, reply):
        found = super().verdict(question, reply)
        return found and (found if question.candidate else replace(found, value=1 - found.value))

    def columns(self, answers, baseline, verdicts):
        games = [[verdicts.get(f"{i}/{place}") for place in (0, 1)] for i in range(len(answers))]
        values = [None if None in own else sum(v.value for v in own) / 2 for own in games]
        return {"win_rate": Column(tuple(values), "share of prompts won", better=1)}


@dataclass(frozen=True)
class Clerk(AskedJudge):
    """Reads the two answers honestly, except for texts that name another behaviour."""

    name = "clerk"
    mood: str = option("honest", "how it replies: honest, mute, contrary or half")
    price: float | None = option(None, "per prompt token")

    def identity(self):
        return {"mood": self.mood}

    def cost(self, usage):
        return None if self.price is None else self.price * usage.prompt_tokens

    @asynccontextmanager
    async def connect(self):
        if BROKEN:
            raise JudgeError(BROKEN.pop())
        yield ClerkSession(self.mood)


@dataclass(frozen=True)
class ClerkSession:
    mood: str

    @property
    def capabilities(self):
        return Capabilities("clerk-1", "r1")

    async def replies(self, questions):
        ASKED.extend(question.id for question in questions)
        return [Reply(self.word(q), usage=Usage(10, 1)) for q in questions]

    def word(self, question):
        _, first, second = question.messages[-1]["content"].split("|")
        if self.mood == "mute":
            return "hm"
        if self.mood == "half":
            return "FIRST" if first < second else "hm"
        return "FIRST" if (len(first) > len(second)) == (self.mood == "honest") else "SECOND"


class Ruler(Judge):
    """The number of characters."""

    name = "ruler"

    def score(self, answers):
        return [Score(float(len(answer.response.text))) for answer in answers]


def registry():
    module = types.ModuleType("judged_toys")
    hooks = {"register_benchmarks": [Longer, LongerTwice], "register_judges": [Clerk, Ruler]}
    for name, classes in hooks.items():
        setattr(module, name, hookimpl(_plain(name, classes)))
    return build_registry([(module, Plugin("judged_toys", "dist", "1", ""))])


def _plain(name, classes):
    def hook():
        return classes

    hook.__name__ = name
    return hook
