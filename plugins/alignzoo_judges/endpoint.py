"""A judge behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from alignzoo import (
    AskedJudge,
    Capabilities,
    JudgeError,
    Question,
    QuestionRefused,
    Reply,
    Usage,
    option,
)
from alignzoo_judges.line import WITHOUT_HTTPX, Form, Line, opener
from alignzoo_judges.probe import probe
from alignzoo_judges.responses import Denied, Place, Refusal, read_chat, refused

OPENAI = "https://api.openai.com/v1"
NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
RESERVED = frozenset({"model", "messages", "stream", "n"})
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")  # fields of a request
MILLION = 1_000_000


@dataclass(frozen=True)
class Endpoint(AskedJudge):
    """A model behind an OpenAI-compatible chat endpoint: OpenAI, vLLM, SGLang, llama.cpp, ...

    Source: https://platform.openai.com/docs/api-reference/chat. Two small requests at the start
    find out whether key, address and model are right, whether log-probs come back and which field
    limits the reply. The key is read from the environment and kept nowhere else.

    Price of a reply = (prompt tokens * price_in + completion tokens * price_out) / 10^6; cached
    prompt tokens count in full.
    """

    name = "openai"
    model: str = option(doc="the model's name on the server")
    url: str = option(OPENAI, "address of any server, up to and with /v1")
    key_variable: str = option("OPENAI_API_KEY", "environment variable that holds the key")
    revision: str | None = option(None, "which weights the server runs; part of the identity")
    concurrency: int = option(16, "requests under way at once", gt=0, le=1000)
    attempts: int = option(8, "how often a question is tried before it counts as failed", gt=0)
    timeout: float = option(120.0, "seconds until a request without a whole reply ends", gt=0)
    price_in: float | None = option(None, "price of a million prompt tokens; null: unknown", ge=0)
    price_out: float | None = option(None, "price of a million completion tokens", ge=0)
    extra: Mapping[str, Any] | None = option(
        None, "fields added to every request body (seed, reasoning_effort); null takes a field out"
    )
    system_as_user: bool = option(
        False, "put system messages before the user's, for models that know no system role"
    )

    other_models: Literal["stop", "fail", "count"] = option(
        "stop",
        "a reply by another model than the one that answers at the start: ends the asking, is "
        "counted as failed, or counts like any other",
    )

    def __post_init__(self) -> None:
        parts = _split(self.url)
        if parts is None:
            raise ValueError(f"url: '{self.url}' is no address such as {OPENAI}")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "url: no user, key or query in it; put the key into the environment variable "
                "that key_variable names"
            )
        if not NAME.fullmatch(self.key_variable):  # a key must not get into an error or a file
            raise ValueError("key_variable: the NAME of an environment variable, not the key")
        taken = sorted(RESERVED & (self.extra or {}).keys())
        if taken:
            raise ValueError(f"extra: {', '.join(taken)} cannot be set there")

    def identity(self) -> Mapping[str, Any]:
        """Model, revision and what goes into every request; neither address nor price."""
        several = {"other_models": "count"} if self.other_models == "count" else {}
        return {
            "model": self.model,
            "revision": self.revision,
            "extra": dict(self.extra or {}),
            "system_as_user": self.system_as_user,
            **several,
        }

    @property
    def form(self) -> Form:
        """What every request holds."""
        return Form(self.model, dict(self.extra or {}), self.system_as_user)

    def cost(self, usage: Usage) -> float | None:
        """Price of a reply; None when a price is not known."""
        if self.price_in is None or self.price_out is None:
            return None
        tokens = usage.prompt_tokens * self.price_in + usage.completion_tokens * self.price_out
        return tokens / MILLION

    def largest_usage(self, question: Question) -> Usage:
        """As usual, but for limits on tokens that `extra` sets or takes out, and with its own text,
        such as tools, in the prompt.
        """
        usual, extra = super().largest_usage(question), self.extra or {}
        given = [extra[key] for key in TOKEN_LIMITS if key in extra]
        own = [_most(limit) for limit in given if limit is not None]
        if given and not own:
            own = [sys.maxsize]
        told = len(json.dumps(extra, default=str)) if extra else 0
        return Usage(usual.prompt_tokens + told, max([usual.completion_tokens, *own]))

    def check_here(self) -> None:
        """Look for the key and for httpx. Raises JudgeError when one is not there."""
        self._key()
        if find_spec("httpx") is None:
            raise JudgeError(WITHOUT_HTTPX)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[EndpointSession]:
        """Probe the server, then keep its connections open.

        Raises JudgeError with one sentence when address, key or model are wrong.
        """
        place = Place(self.url.rstrip("/"), self.model, self.key_variable, self._key())
        async with AsyncExitStack() as stack:
            line = Line(opener(place, self.timeout, stack), place, self.timeout)
            capabilities, tokens_field = await probe(self.form, line, self.revision, self.attempts)
            if self.other_models == "count":  # whoever answers is the judge
                capabilities = replace(capabilities, revision=self.revision, served=None)
            yield EndpointSession(self, line, capabilities, tokens_field)

    def _key(self) -> str | None:
        """The key without the white space that files and shells leave around it."""
        key = os.environ.get(self.key_variable, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise JudgeError(f"openai: {self.key_variable} holds characters that no key has")
        if not key and self.url.rstrip("/") == OPENAI:
            raise JudgeError(
                f"openai: {self.key_variable} is not set; export the key under this name, or "
                "name the variable that holds it with `key_variable`"
            )
        return key or None


@dataclass
class EndpointSession:
    """An open line to a server that was found to answer."""

    judge: Endpoint
    line: Line
    capabilities: Capabilities
    tokens_field: str  # "max_tokens", or what the server takes instead
    answered: bool = False  # any question: then the server's objections are to single ones

    async def replies(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply per question, asked one after the other."""
        return [await self._reply(question) for question in questions]

    async def _reply(self, question: Question) -> Reply:
        answer = await self.line.send("/chat/completions", self.body(question))
        try:
            reply = read_chat(*answer, self.line.place)
        except Refusal as refusal:
            first = not self.answered
            return refused(refusal, self.line.place, self.tokens_field, first=first)
        except Denied as denied:
            raise QuestionRefused(f"refused ({denied.said})") from denied
        self.answered = True
        return reply

    def body(self, question: Question) -> dict[str, Any]:
        """The request: model, messages, decoding, and the user's extra fields over them."""
        decoding = question.decoding
        fields = {self.tokens_field: decoding.max_tokens, "temperature": decoding.temperature}
        if decoding.top_logprobs and self.capabilities.top_logprobs:
            fields |= {"logprobs": True, "top_logprobs": decoding.top_logprobs}
        return self.judge.form.body(question.messages, fields, question.repeat)


def _most(limit: Any) -> int:
    """The tokens that a limit of a request leaves; what is no number from 1 on may be no limit."""
    known = isinstance(limit, int | float) and 1 <= limit < sys.maxsize
    return math.ceil(limit) if known else sys.maxsize


def _split(url: str) -> SplitResult | None:
    """The parts of an address; None when it is none."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets without an end; a port that is no number, or too large
        return None
    return parts if known else None
