"""The promises of judges that are asked in words, and of the benchmarks that ask them."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from alignzoo.contract.evaluation import WIN_RATE, Answer, Column, Score
from alignzoo.contract.replies import read_verdict
from alignzoo.contract.types import PromptSample, Response
from alignzoo.contract.verdicts import (
    AskedJudge,
    Capabilities,
    Decoding,
    JudgeBusy,
    JudgedBenchmark,
    JudgeSession,
    Question,
    Reply,
    Usage,
    Verdict,
)
from alignzoo.testing.checks import Trial, documented, require

TEXTS = ("yes .", "", "no no no !", "a rather long answer " * 20)
THEIRS = "an answer of somebody else"
ODD = (
    "",
    " ",
    "[[A]]",
    "[[10]]",
    "[[A>>B]] [[B>A]]",
    "<think>[[A]]</think>[[7]]",
    "m",
    "{}[]\\",
    "ñ漢\u202e\ud800",
    "x" * 100_000,
)
ODD_LOGPROBS: tuple[Mapping[str, float], ...] = ({}, {"m": -0.1}, {" m": -0.1, "zz": -9e9})
SHOWN = 6  # prompts of a benchmark that are answered
ASKED = 2  # prompts a judge is asked about: it may cost money
PAUSE = 0.2  # seconds before a busy judge is asked again
LONGEST = 10  # follow-up questions to one odd reply
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)


# --- judges ----------------------------------------------------------------------------------


def asked_judge_trials(
    judge: AskedJudge, prompts: Sequence[PromptSample]
) -> Iterator[tuple[str, Trial]]:
    """Ask a judge a few short questions about some prompts."""
    questions = list(_questions(prompts[:ASKED]))
    yield "it connects and says what it can do", lambda: _able(judge)
    yield "one reply per question, in order", lambda: _replies(judge, questions)
    yield (
        "at temperature 0 a question has one reply, whatever else is asked",
        lambda: _steady(judge, questions),
    )
    yield "its identity is JSON, stable, and holds no key", lambda: _identity(judge)
    yield "a reply costs nothing less than 0, or it is not known", lambda: _cost(judge)
    yield "docstring", lambda: documented(judge)


def _questions(prompts: Iterable[PromptSample]) -> Iterator[Question]:
    for index, prompt in enumerate(prompts):
        for number, text in enumerate(TEXTS):
            answer = Answer(prompt, Response(text), len(text.split()))
            asked = f"Is this a good answer? Say yes or no.\n\n{prompt.prompt}\n\n{text}"
            messages = ({"role": "user", "content": asked},)
            decoding = Decoding(max_tokens=8)
            yield Question(f"{index}/{number}", index, (answer,), messages, decoding)


def _able(judge: AskedJudge) -> str:
    async def connect() -> Capabilities:
        async with judge.connect() as session:
            return session.capabilities

    found = asyncio.run(connect())
    require(isinstance(found, Capabilities), f"capabilities are {type(found).__name__}")
    require(bool(found.model), "no name of the model")
    require(found.top_logprobs >= 0, f"top_logprobs is {found.top_logprobs}")
    require(found.context_length is None or found.context_length > 0, "a context of no tokens")
    return f"{found.model}: top_logprobs {found.top_logprobs}, context {found.context_length}"


def _replies(judge: AskedJudge, questions: Sequence[Question]) -> str:
    (replies,) = _ask(judge, [questions])
    require(len(replies) == len(questions), f"{len(replies)} replies to {len(questions)} questions")
    odd = [reply for reply in replies if not isinstance(reply, Reply) or not _sound(reply)]
    require(not odd, f"not a sound Reply: {odd[:1]}")
    return f"{len(replies)} replies"


def _sound(reply: Reply) -> bool:
    numbers = [*(reply.top_logprobs or {}).values(), *(reply.scores or ())]
    return isinstance(reply.text, str) and all(map(math.isfinite, numbers))


def _steady(judge: AskedJudge, questions: Sequence[Question]) -> str:
    first, *again = _ask(judge, [questions, *([question] for question in reversed(questions))])
    alone = [reply for (reply,) in reversed(again)]
    changed = [
        q.id for q, a, b in zip(questions, first, alone, strict=True) if _said(a) != _said(b)
    ]
    require(not changed, f"other replies when asked alone: {', '.join(changed)}")
    return ""


def _said(reply: Reply) -> object:
    return reply.text, reply.scores, reply.error is None


def _ask(judge: AskedJudge, groups: Iterable[Sequence[Question]]) -> list[Sequence[Reply]]:
    async def ask() -> list[Sequence[Reply]]:
        async with judge.connect() as session:
            return [await _patient(judge, session, group) for group in groups]

    return asyncio.run(ask())


async def _patient(
    judge: AskedJudge, session: JudgeSession, questions: Sequence[Question]
) -> Sequence[Reply]:
    for _ in range(judge.attempts - 1):
        try:
            return await session.replies(questions)
        except JudgeBusy as error:
            await asyncio.sleep(min(error.after or PAUSE, 10 * PAUSE))
    return await session.replies(questions)


def _identity(judge: AskedJudge) -> str:
    text = json.dumps(judge.identity(), allow_nan=False)
    require(text == json.dumps(judge.identity()), "it changes from call to call")
    shown = text + repr(judge)
    secrets = {n for n, x in os.environ.items() if SECRET.search(n) and len(x) >= 8 and x in shown}
    require(not secrets, f"the value of {', '.join(sorted(secrets))} is in identity or repr")
    return text[:60]


def _cost(judge: AskedJudge) -> str:
    costs = [judge.cost(Usage(*tokens)) for tokens in ((0, 0), (1000, 100))]
    require(all(c is None or (c >= 0 and math.isfinite(c)) for c in costs), f"costs {costs}")
    return "not known" if None in costs else ""


# --- benchmarks --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Match:
    """Made-up answers to a benchmark's first prompts, and what it asks about them."""

    benchmark: JudgedBenchmark
    answers: Sequence[Answer]
    baseline: Sequence[Answer] | None

    def questions(self) -> list[Question]:
        return list(self.benchmark.questions(self.answers, self.baseline))

    def columns(self, verdicts: Mapping[str, Verdict]) -> Mapping[str, Column]:
        return self.benchmark.columns(self.answers, self.baseline, verdicts)


def judged_benchmark_trials(benchmark: JudgedBenchmark) -> Iterator[tuple[str, Trial]]:
    """Let a benchmark ask about made-up answers, and reply to it in odd ways."""
    yield "questions are the same every time, with ids of their own", lambda: _stable(benchmark)
    yield "questions show the answers they are about", lambda: _shown(benchmark)
    yield "any reply is read as a verdict, a question or nothing", lambda: _read(benchmark)
    yield "a scoring judge fits", lambda: _scored(benchmark)
    yield "columns are finite with all verdicts, some and none", lambda: _columns(benchmark)
    yield "a model ties with itself", lambda: _tie(benchmark)
    yield "columns are explained", lambda: _explained(benchmark)
    yield "settings are JSON", lambda: json.dumps(benchmark.settings(), allow_nan=False)[:60]


def _match(benchmark: JudgedBenchmark) -> _Match:
    prompts = list(benchmark.prompts(0))[:SHOWN]
    answers = [_answer(benchmark, p, TEXTS[i % len(TEXTS)]) for i, p in enumerate(prompts)]
    theirs = benchmark.baseline_answers(prompts)
    if theirs is None and benchmark.compares:
        theirs = [_answer(benchmark, prompt, THEIRS) for prompt in prompts]
    return _Match(benchmark, answers, theirs)


def _answer(benchmark: JudgedBenchmark, prompt: PromptSample, text: str) -> Answer:
    earlier = tuple(Response(f"{text} {i}") for i, _ in enumerate(benchmark.later_turns(prompt)))
    return Answer(prompt, Response(text), len(text.split()), earlier)


def _stable(benchmark: JudgedBenchmark) -> str:
    match = _match(benchmark)
    first, again = match.questions(), match.questions()
    require(bool(first), f"no questions about {len(match.answers)} answers")
    require([q.digest for q in first] == [q.digest for q in again], "a second call asks others")
    ids = [question.id for question in first]
    require(ids == [q.id for q in again], "a second call gives other ids")
    require(len(set(ids)) == len(ids), "two questions have one id")
    return f"{len(ids)} questions"


def _shown(benchmark: JudgedBenchmark) -> str:
    match = _match(benchmark)
    for question in match.questions():
        inside = 0 <= question.index < len(match.answers)
        require(inside, f"{question.id}: index {question.index} is no prompt")
        require(
            0 <= question.candidate < len(question.answers),
            f"{question.id}: candidate {question.candidate} of {len(question.answers)} answers",
        )
        own, whole = question.answers[question.candidate], match.answers[question.index]
        begun = own.turns == whole.turns[: len(own.turns)]  # the first turn may be judged alone
        require(begun, f"{question.id}: the candidate's answer is another prompt's")
        sound = all(isinstance(m.get(k), str) for m in question.messages for k in _MESSAGE)
        require(bool(question.messages) and sound, f"{question.id}: messages need role and content")
    return ""


_MESSAGE = ("role", "content")


def _read(benchmark: JudgedBenchmark) -> str:
    questions = _match(benchmark).questions()
    kinds = (questions[0], questions[-1])
    replies = [Reply(text, finish=how) for text in ODD for how in ("stop", "length")]
    replies += [Reply("m", top_logprobs=x) for x in ODD_LOGPROBS]
    for question in kinds:
        for reply in replies:
            _follow(benchmark, question, reply)
    return f"{len(replies)} odd replies"


def _follow(benchmark: JudgedBenchmark, question: Question, reply: Reply) -> None:
    """Read the same odd reply to a question and to every question that follows it."""
    what = f"{question.id}, reply {reply.text[:20]!r}"
    for _ in range(LONGEST):
        found = read_verdict(benchmark, question, reply)
        if found is None:
            return
        if isinstance(found, Verdict):
            share = not benchmark.compares or 0 <= found.value <= 1
            sound = math.isfinite(found.value) and share and 0 <= found.weight < math.inf
            require(sound, f"{what}: {found}")
            return
        require(isinstance(found, Question), f"{what}: {type(found).__name__}")
        require(found.digest != question.digest, f"{what}: asks the same question for ever")
        question = found
    require(False, f"{what}: more than {LONGEST} questions follow")


def _scored(benchmark: JudgedBenchmark) -> str:
    for question in _match(benchmark).questions():
        scores = [Score(float(n)).value for n, _ in enumerate(question.answers)]
        found = benchmark.scored(question, scores)
        require(isinstance(found, Verdict), f"{question.id}: {type(found).__name__}")
        require(math.isfinite(found.value), f"{question.id}: {found}")
    return ""


def _columns(benchmark: JudgedBenchmark) -> str:
    match = _match(benchmark)
    every = {q.id: Verdict((i % 3) / 2) for i, q in enumerate(match.questions())}
    some = dict(list(every.items())[::2])
    names: list[str] = []
    for kind, verdicts in (("all", every), ("some", some), ("no", {})):
        columns = match.columns(verdicts)
        for name, column in columns.items():
            _check_column(f"{kind} verdicts: {name}", column, len(match.answers))
        names = names or list(columns)
    return ", ".join(names)


def _check_column(place: str, column: Column, n: int) -> None:
    require(len(column.values) == n, f"{place} has {len(column.values)} values for {n} prompts")
    odd = [x for x in column.values if x is not None and not math.isfinite(x)]
    require(not odd, f"{place} has the value {odd[:1]}; a missing one is None")
    found = column.estimate
    shown = (found.value, found.low, found.high, found.error) if found else ()
    odd = [x for x in shown if x is not None and not math.isfinite(x)]
    require(not odd, f"{place} is estimated as {odd[:1]}; one that cannot be had is None")


def _tie(benchmark: JudgedBenchmark) -> str:
    if not benchmark.compares:
        return "grades single answers"
    own = _match(benchmark).answers
    match = _Match(benchmark, own, own)
    ties = {q.id: Verdict(0.5, label="itself") for q in match.questions()}
    column = match.columns(ties).get(WIN_RATE)
    if column is None:
        return "no win rate"
    known = [x for x in column.values if x is not None]
    shown = known if column.estimate is None else [column.estimate.value, *known]
    odd = [x for x in shown if min(abs(x - 0.5), abs(x - 50)) > 1e-9]
    require(bool(shown) and not odd, f"win rates {odd[:3]} against itself")
    return "win rate .5"


def _explained(benchmark: JudgedBenchmark) -> str:
    columns = _match(benchmark).columns({})
    unclear = [name for name, column in columns.items() if column.better and not column.doc]
    require(not unclear, f"no explanation of {', '.join(unclear)}")
    return f"{len(columns)} columns"
