"""The contract of judges that are asked in words, and of the benchmarks that ask them.

A benchmark turns answers into questions, the engine puts them to the judge and keeps every raw
reply, and the benchmark reads verdicts out of replies. Asking and reading are apart, so that a
reply is paid for once however often it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

from alignzoo.contract.errors import AlignzooError
from alignzoo.contract.evaluation import Answer, Benchmark, Column, Judge
from alignzoo.contract.rollout import COLD
from alignzoo.contract.types import Message, PromptSample

AROUND = 32  # tokens at most that a chat template puts around a message, or a conversation


@dataclass(frozen=True)
class Decoding:
    """How a judge is to reply."""

    max_tokens: int = 2048
    temperature: float = 0.0
    top_logprobs: int = 0  # alternatives wanted for the first token of the reply

    @property
    def is_greedy(self) -> bool:
        """As of sampling: whether the likeliest token is taken."""
        return self.temperature < COLD


@dataclass(frozen=True)
class Question:
    """One thing asked of a judge: grade one answer, or compare two."""

    id: str  # stable and unique within one model's evaluation: "17/1"
    index: int  # number of the prompt that is judged
    answers: tuple[Answer, ...]  # in the order shown
    messages: tuple[Message, ...]  # the rendered prompt
    decoding: Decoding = Decoding()
    candidate: int = 0  # place of the evaluated model's answer in `answers`
    repeat: int = 0  # equal questions with different numbers are asked anew

    @property
    def digest(self) -> str:
        """Sha256 (hex) of everything the judge sees; two equal questions share a reply."""
        seen = [[dict(m) for m in self.messages], asdict(self.decoding), self.repeat]
        text = json.dumps(seen, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Usage:
    """Tokens a reply cost."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Reply:
    """What came back, before anybody reads it.

    A judge that scores gives `scores`, one per answer shown. `error` says why this question can
    never be answered (longer than the judge's context, refused): it is counted, and no verdict.
    """

    text: str = ""
    top_logprobs: Mapping[str, float] | None = None  # of the first token: token -> log-prob, nats
    scores: tuple[float, ...] | None = None
    usage: Usage | None = None
    finish: str | None = None  # "stop", "length" (cut: no verdict), or the server's own word
    error: str | None = None
    model: str | None = None  # who says that it answered; None: it does not say
    fingerprint: str | None = None  # of the server's set-up, in its own words


@dataclass(frozen=True)
class Verdict:
    """What a reply says. `value` is a grade, or how far the candidate is preferred, 0 to 1."""

    value: float
    weight: float = 1.0
    label: str = ""  # in the judge's own terms: "A>>B"


@dataclass(frozen=True)
class Capabilities:
    """What a judge turned out to be able to do when it was connected."""

    model: str  # as the server calls it
    revision: str | None = None
    top_logprobs: int = 0  # the most it returns per token; 0: none
    context_length: int | None = None  # tokens of prompt and reply; None: it does not say
    served: str | None = None  # who must answer, as replies say it; None: whoever does counts


class JudgeError(AlignzooError):
    """The judge cannot be used at all: wrong key, wrong URL, a missing capability."""


class QuestionRefused(JudgeError):
    """A judge that takes others refuses this question; many in a row mean that it is gone."""


class JudgeBusy(Exception):
    """No reply this time (429, 5xx, timeout, dropped connection, damaged body): ask again."""

    def __init__(self, why: str, after: float | None = None, usage: Usage | None = None) -> None:
        self.after = after  # seconds the server asks to wait
        self.usage = usage  # tokens that it took all the same
        super().__init__(why)


class JudgeSession(Protocol):
    """An open connection to a judge, or a loaded model."""

    @property
    def capabilities(self) -> Capabilities:
        """What the judge turned out to be able to do."""
        ...

    async def replies(self, questions: Sequence[Question]) -> Sequence[Reply]:
        """One reply per question, in order.

        Raises JudgeBusy when asking again may help, QuestionRefused when it will not help these
        questions, and JudgeError when nothing will.
        """
        ...


class AskedJudge(Judge):
    """Base of judges that read messages: a frozen dataclass of options.

    `concurrency` batches of up to `batch_size` questions are under way at once; a batch without a
    reply is tried up to `attempts` times. A reply that names another model than
    `Capabilities.served` is no verdict; `other_models` says whether it stops the asking ("stop") or
    counts as failed ("fail"). Subclasses may make options of them.
    """

    batch_size: int = 1
    concurrency: int = 1
    attempts: int = 8
    other_models: str = "stop"

    def identity(self) -> Mapping[str, Any]:
        """What decides the replies: the model, its revision, extra decoding settings.

        Never the key, the address, the price or the patience.
        """
        raise TypeError(f"{type(self).__name__} does not say what it is")

    def connect(self) -> AbstractAsyncContextManager[JudgeSession]:
        """Open a session and find out what the judge can do.

        Raises JudgeError with one sentence when it cannot be reached or refuses the key.
        """
        raise TypeError(f"{type(self).__name__} cannot be asked")

    def cost(self, usage: Usage) -> float | None:
        """Price of a reply in the user's currency; None: not known, which is not 0."""
        return None

    def largest_usage(self, question: Question) -> Usage:
        """The most tokens that a reply to a question can take, for `max_cost`.

        A token of a prompt has a byte at least; what templates add is counted per message. A reply
        that nothing cuts has `sys.maxsize` tokens; with a price no `max_cost` is taken then.
        """
        texts = [str(message.get("content") or "") for message in question.messages]
        size = sum(len(text.encode(errors="surrogatepass")) + AROUND for text in texts)
        return Usage(AROUND + size, question.decoding.max_tokens)


class JudgedBenchmark(Benchmark):
    """A benchmark whose judge is chosen by the recipe. A judge that scores fits it too."""

    compares: ClassVar[bool] = True  # with a baseline's answers; False: it grades single answers

    @property
    def top_logprobs(self) -> int:
        """Alternatives of the first token that the judge must return; 0: text is enough."""
        return 0

    def baseline_answers(self, prompts: Sequence[PromptSample]) -> Sequence[Answer] | None:
        """The benchmark's own baseline, one answer per prompt; None: the recipe must name one,
        or none is needed.
        """
        return None

    def questions(
        self, answers: Sequence[Answer], baseline: Sequence[Answer] | None
    ) -> Iterator[Question]:
        """Everything to ask about one model. `answers[i]` is its answer to prompt i.

        Made one by one, so that memory does not grow with their number.
        """
        raise TypeError(f"{type(self).__name__} asks nothing")

    def verdict(self, question: Question, reply: Reply) -> Verdict | Question | None:
        """Read a reply: a verdict, a follow-up question (its reply is read next), or None.

        Never called with a reply that has scores or an error, nor with one that is still thinking:
        `reply.text` comes without its reasoning. The verdict on a reply that was cut counts only
        when it hangs on the reply's last word, for which this is called once more without that.
        """
        raise TypeError(f"{type(self).__name__} reads no replies")

    def scored(self, question: Question, scores: Sequence[float]) -> Verdict:
        """What a scoring judge's scores of the answers shown mean: the grade, or who is better."""
        if len(scores) == 1:
            return Verdict(scores[0])
        own, other = scores[question.candidate], scores[1 - question.candidate]
        return Verdict(float(own > other) + 0.5 * (own == other))

    def columns(
        self,
        answers: Sequence[Answer],
        baseline: Sequence[Answer] | None,
        verdicts: Mapping[str, Verdict],
    ) -> Mapping[str, Column]:
        """The leaderboard's columns. `verdicts` has the ids of the questions that were answered
        and understood; the others are missing and must not count as anything.
        """
        raise TypeError(f"{type(self).__name__} has no columns")


@dataclass(frozen=True)
class Tally:
    """How the questions about one model fared."""

    judged: int  # questions asked
    parsed: int  # verdicts
    failed: int  # replies without a verdict: judged - parsed
    usage: Usage | None = Usage(0, 0)  # None: a reply does not say
    cost: float | None = None
    unread: tuple[str, ...] = field(default=())  # ids of the first questions without a verdict
