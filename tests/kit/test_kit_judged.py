"""The conformance kit for asked judges and judged benchmarks: sound ones pass, flaws are named."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import os
import random
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from alignzoo import (
    AskedJudge,
    Capabilities,
    Column,
    Decoding,
    Estimate,
    JudgeBusy,
    JudgedBenchmark,
    PluginError,
    PromptSample,
    Question,
    Reply,
    Verdict,
    option,
)
from alignzoo.testing import (
    check_benchmark,
    check_judge,
    judged,
    run_benchmark_checks,
    run_judge_checks,
)

PROMPTS = [PromptSample("Say hello."), PromptSample("Count."), PromptSample("Sing.")]


def broken(checks):
    return {check.promise: check.detail for check in checks if not check.kept}


# --- judges ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Nod(AskedJudge):
    """Says how long the question is."""

    name = "nod"
    key: str = option("", "an option that should not hold a key")

    def identity(self):
        return {"version": 1}

    @asynccontextmanager
    async def connect(self):
        yield NodSession(self)


@dataclass
class NodSession:
    judge: Nod
    capabilities: ClassVar = Capabilities("nod-1", context_length=100)

    async def replies(self, questions):
        return [Reply(str(len(q.messages[0]["content"]))) for q in questions]


def with_session(name, **members):
    """A judge whose sessions differ from the sound one."""
    session = type("Session", (NodSession,), members)

    @asynccontextmanager
    async def connect(self):
        yield session(self)

    return type(name, (Nod,), {"__doc__": "Differs.", "connect": connect})


async def swapped(self, questions):
    return [Reply(str(n)) for n, _ in enumerate(questions)]


async def one_short(self, questions):
    return [Reply("yes") for _ in questions][:-1]


async def not_finite(self, questions):
    return [Reply("yes", top_logprobs={"yes": float("nan")}) for _ in questions]


async def bare_text(self, questions):
    return ["yes" for _ in questions]


async def no_text(self, questions):
    return [Reply(None) for _ in questions]


async def odd_scores(self, questions):
    return [Reply("", scores=(float("inf"),)) for _ in questions]


def test_a_sound_judge_passes():
    check_judge(Nod(), PROMPTS)


def test_a_judge_that_is_busy_once_is_asked_again():
    calls = []

    async def busy_once(self, questions):
        calls.append(1)
        if len(calls) == 1:
            raise JudgeBusy("later", after=0.0)
        return await NodSession.replies(self, questions)

    check_judge(with_session("Busy", replies=busy_once)(), PROMPTS)


STEADY = "at temperature 0 a question has one reply, whatever else is asked"
SESSIONS = [
    ({"replies": swapped}, STEADY),
    ({"replies": one_short}, "one reply per question, in order"),
    ({"replies": not_finite}, "one reply per question, in order"),
    ({"replies": bare_text}, "one reply per question, in order"),
    ({"replies": no_text}, "one reply per question, in order"),
    ({"replies": odd_scores}, "one reply per question, in order"),
    ({"capabilities": {"model": "nod-1"}}, "it connects and says what it can do"),
    ({"capabilities": Capabilities("")}, "it connects and says what it can do"),
    ({"capabilities": Capabilities("x", top_logprobs=-1)}, "it connects and says what it can do"),
    ({"capabilities": Capabilities("x", context_length=0)}, "it connects and says what it can do"),
]


@pytest.mark.parametrize(("members", "promise"), SESSIONS)
def test_a_flawed_session_is_told_which_promise_it_breaks(members, promise):
    judge = with_session("Flawed", **members)()
    assert promise in broken(run_judge_checks(judge, PROMPTS))
    with pytest.raises(PluginError, match="breaks"):
        check_judge(judge, PROMPTS)


KNOWN = "its identity is JSON, stable, and holds no key"
CALLS = itertools.count()
ODD = [
    ({"identity": lambda self: {"x": object()}}, KNOWN),
    ({"identity": lambda self: {"call": next(CALLS)}}, KNOWN),
    ({"cost": lambda self, usage: -1.0}, "a reply costs nothing less than 0, or it is not known"),
    ({"__doc__": None}, "docstring"),
]


def test_every_promise_of_an_asked_judge_has_a_flawed_plugin():
    flawed = {promise for _, promise in (*SESSIONS, *ODD)}
    assert {c.promise for c in run_judge_checks(Nod(), PROMPTS)} == flawed


def test_a_judge_that_shows_a_key_of_the_environment_is_told_the_variable(monkeypatch):
    monkeypatch.setitem(os.environ, "SOME_API_KEY", "secret-0123456789")
    promise = "its identity is JSON, stable, and holds no key"
    found = broken(run_judge_checks(Nod(key="secret-0123456789"), PROMPTS))
    assert "SOME_API_KEY" in found[promise]
    assert "secret-0123456789" not in str(found)


@pytest.mark.parametrize(("members", "promise"), ODD)
def test_identity_price_and_docstring_have_to_be_sound(members, promise):
    judge = type("Odd", (Nod,), {"__doc__": "Odd.", **members})()
    assert promise in broken(run_judge_checks(judge, PROMPTS))


# --- benchmarks ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Better(JudgedBenchmark):
    """Which answer is better."""

    name = "better"

    def prompts(self, seed):
        return PROMPTS

    def questions(self, answers, baseline):
        for i, (own, other) in enumerate(zip(answers, baseline, strict=True)):
            text = f"{own.response.text}|{other.response.text}"
            yield Question(str(i), i, (own, other), ({"role": "user", "content": text},))

    def verdict(self, question, reply):
        return Verdict(1.0) if "[[A]]" in reply.text else None

    def columns(self, answers, baseline, verdicts):
        values = tuple(
            verdicts[str(i)].value if str(i) in verdicts else None for i in range(len(answers))
        )
        return {"win_rate": Column(values, "share won", better=1)}


@dataclass(frozen=True)
class Grade(Better):
    """A grade for each answer."""

    compares = False

    def questions(self, answers, baseline):
        for i, own in enumerate(answers):
            yield Question(str(i), i, (own,), ({"role": "user", "content": own.response.text},))


def test_sound_benchmarks_pass():
    check_benchmark(Better())
    check_benchmark(Grade())


def variant(**members):
    return type("Variant", (Better,), {"__doc__": "Differs.", **members})()


def asks(**changes):
    def questions(self, answers, baseline):
        for question in Better.questions(self, answers, baseline):
            yield replace(question, **changes)

    return questions


def forgetful(self, answers, baseline):
    self.calls.append(1)
    changed = Decoding(max_tokens=len(self.calls))
    return (replace(q, decoding=changed) for q in Better.questions(self, answers, baseline))


def renumbered(self, answers, baseline):
    return (replace(q, id=f"{next(CALLS)}") for q in Better.questions(self, answers, baseline))


def shows(column):
    return lambda self, answers, baseline, verdicts: {"win_rate": column(len(answers))}


STABLE = "questions are the same every time, with ids of their own"
SHOWN = "questions show the answers they are about"
READ = "any reply is read as a verdict, a question or nothing"
FINITE = "columns are finite with all verdicts, some and none"
NAN = float("nan")
BENCHMARKS = [
    ({"questions": asks(id="0")}, STABLE),
    ({"questions": renumbered}, STABLE),
    ({"questions": lambda *_: iter(())}, STABLE),
    ({"questions": forgetful, "calls": []}, STABLE),
    ({"questions": asks(candidate=2)}, SHOWN),
    ({"questions": asks(candidate=1)}, SHOWN),
    ({"questions": asks(index=99)}, SHOWN),
    ({"questions": asks(messages=())}, SHOWN),
    ({"questions": asks(messages=({"role": "user"},))}, SHOWN),
    ({"verdict": lambda self, question, reply: Verdict(float(reply.text))}, READ),
    ({"verdict": lambda self, question, reply: 0.5}, READ),
    ({"verdict": lambda self, question, reply: Verdict(0.5, weight=-1.0)}, READ),
    ({"verdict": lambda self, question, reply: Verdict(0.5, weight=math.inf)}, READ),
    ({"verdict": lambda self, question, reply: Verdict(NAN)}, READ),
    ({"verdict": lambda self, question, reply: Verdict(1.7)}, READ),  # a share of preference
    ({"verdict": lambda self, question, reply: question}, READ),
    (
        {"verdict": lambda self, question, reply: replace(question, repeat=question.repeat + 1)},
        READ,
    ),
    ({"columns": shows(lambda n: Column((NAN,) * n, "x"))}, FINITE),
    ({"columns": shows(lambda n: Column((0.5,) * (n + 1), "x"))}, FINITE),
    ({"columns": shows(lambda n: Column((0.5,) * n, "x", 0, Estimate(NAN, 0, 1)))}, FINITE),
    ({"columns": shows(lambda n: Column((0.5,) * n, "x", 0, Estimate(0, 0, NAN)))}, FINITE),
    ({"columns": shows(lambda n: Column((0.7,) * n, "x"))}, "a model ties with itself"),
    ({"columns": shows(lambda n: Column((None,) * n, "x"))}, "a model ties with itself"),
    ({"columns": shows(lambda n: Column((None,) * n, better=1))}, "columns are explained"),
    ({"settings": lambda self: {"x": {1, 2}}}, "settings are JSON"),
    ({"scored": lambda self, question, scores: None}, "a scoring judge fits"),
    ({"scored": lambda self, question, scores: Verdict(NAN)}, "a scoring judge fits"),
]


def drawn(self, seed):
    return [PromptSample(str(random.random()))]


PROMPTED = [
    ({"prompts": drawn}, "prompts depend on the seed alone"),
    ({"__doc__": None}, "docstring"),
]


def test_every_promise_of_a_judged_benchmark_has_a_flawed_plugin():
    flawed = {promise for _, promise in (*PROMPTED, *BENCHMARKS)}
    assert {c.promise for c in run_benchmark_checks(Better())} == flawed


@pytest.mark.parametrize(("members", "promise"), [*PROMPTED, *BENCHMARKS])
def test_a_flawed_benchmark_is_told_which_promise_it_breaks(members, promise):
    benchmark = variant(**members)
    assert promise in broken(run_benchmark_checks(benchmark))
    with pytest.raises(PluginError, match="breaks"):
        check_benchmark(benchmark)


def test_a_benchmark_without_prompts_is_told_that_alone():
    benchmark = variant(prompts=lambda self, seed: [])
    assert list(broken(run_benchmark_checks(benchmark))) == ["prompts depend on the seed alone"]


def test_every_single_demand_on_judges_and_benchmarks_is_broken_by_a_flawed_plugin(monkeypatch):
    broken_at, require = set(), judged.require

    def noting(kept, why):
        if not kept:
            broken_at.add(sys._getframe(1).f_lineno)
        require(kept, why)

    monkeypatch.setattr(judged, "require", noting)
    monkeypatch.setitem(os.environ, "SOME_API_KEY", "secret-0123456789")
    run_judge_checks(Nod(key="secret-0123456789"), PROMPTS)
    for members, _ in SESSIONS:
        run_judge_checks(with_session("Flawed", **members)(), PROMPTS)
    for members, _ in ODD:
        run_judge_checks(type("Odd", (Nod,), {"__doc__": "Odd.", **members})(), PROMPTS)
    for members, _ in (*PROMPTED, *BENCHMARKS):
        run_benchmark_checks(variant(**members))
    calls = [n for n in ast.walk(ast.parse(inspect.getsource(judged))) if isinstance(n, ast.Call)]
    demands = {n.lineno for n in calls if ast.unparse(n.func) == "require"}
    assert len(demands) > 20
    assert broken_at == demands
