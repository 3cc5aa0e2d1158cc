"""A judge behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from alignzoo import (
    AskedJudge,
    Capabilities,
    JudgeBusy,
    JudgeError,
    Question,
    Reply,
    Usage,
    option,
)
from alignzoo_judges.chat import without_system
from alignzoo_judges.responses import Place, Refusal, read_chat, refused

if TYPE_CHECKING:
    import httpx

OPENAI = "https://api.openai.com/v1"
NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
RESERVED = frozenset({"model", "messages", "stream", "n"})
CONNECT_SECONDS = 10.0
MOST_BYTES = 2**26  # of a response; a reply of 100,000 tokens with log-probs has a third of it
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
        return {
            "model": self.model,
            "revision": self.revision,
            "extra": dict(self.extra or {}),
            "system_as_user": self.system_as_user,
        }

    def cost(self, usage: Usage) -> float | None:
        """Price of a reply; None when a price is not known."""
        if self.price_in is None or self.price_out is None:
            return None
        tokens = usage.prompt_tokens * self.price_in + usage.completion_tokens * self.price_out
        return tokens / MILLION

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[EndpointSession]:
        """Probe the server, then keep its connections open.

        Raises JudgeError with one sentence when address, key or model are wrong.
        """
        from alignzoo_judges.probe import probe

        place = Place(self.url.rstrip("/"), self.model, self.key_variable, self._key())
        async with AsyncExitStack() as stack:
            line = Line(_opener(self, place, stack), place, self.timeout)
            capabilities, tokens_field = await probe(self, line)
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


@dataclass(frozen=True)
class Line:
    """The way to one server. It turns every failure of the network into JudgeBusy.

    Requests under way at once have a client each: the pool inside a client looks at all of its
    connections for every request, which with 64 of them doubled the processor's work.
    """

    open: Callable[[], httpx.AsyncClient] = field(repr=False)
    place: Place
    timeout: float
    idle: list[httpx.AsyncClient] = field(default_factory=list, repr=False)

    async def send(
        self, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """GET, or POST a body: (status, headers, content).

        The time limit is for the whole exchange, so that a server that trickles bytes cannot hold
        a question for ever.
        """
        import httpx

        # Escapes instead of UTF-8: an answer may hold half a surrogate pair.
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        method = "GET" if body is None else "POST"
        client = self.idle.pop() if self.idle else self.open()
        try:
            async with asyncio.timeout(self.timeout):
                url = self.place.url + path
                async with client.stream(method, url, content=content) as response:
                    return response.status_code, response.headers, await _body(response)
        except TimeoutError as error:
            raise JudgeBusy(f"no reply within {self.timeout:g} s") from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise Unreachable(self.place.clean(_cause(error))) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise JudgeError(f"openai: url: '{self.place.url}' is no address: {error}") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise JudgeBusy(self.place.clean(f"connection: {_cause(error)}")) from error
        finally:
            self.idle.append(client)


async def _body(response: httpx.Response) -> bytes:
    """The whole body, unpacked; raises JudgeBusy for one without end, before memory is full."""
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > MOST_BYTES:
            raise JudgeBusy(f"a body of more than {MOST_BYTES >> 20} MiB")
    return bytes(body)


class Unreachable(JudgeBusy):
    """No connection at all: at the start a wrong address, later a server that restarts."""


@dataclass
class EndpointSession:
    """An open line to a server that was found to answer."""

    judge: Endpoint
    line: Line
    capabilities: Capabilities
    tokens_field: str  # "max_tokens", or what the server takes instead

    async def replies(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply per question, asked one after the other."""
        return [await self._reply(question) for question in questions]

    async def _reply(self, question: Question) -> Reply:
        body = self.body(question)
        try:
            return read_chat(*await self.line.send("/chat/completions", body), self.line.place)
        except Refusal as refusal:
            return refused(refusal, self.line.place, self.tokens_field)

    def body(self, question: Question) -> dict[str, Any]:
        """The request: model, messages, decoding, and the user's extra fields over them."""
        decoding = question.decoding
        fields = {self.tokens_field: decoding.max_tokens, "temperature": decoding.temperature}
        if decoding.top_logprobs and self.capabilities.top_logprobs:
            fields |= {"logprobs": True, "top_logprobs": decoding.top_logprobs}
        return request(self.judge, question.messages, fields, question.repeat)


def request(
    judge: Endpoint,
    messages: Sequence[Mapping[str, str]],
    fields: Mapping[str, Any],
    repeat: int = 0,
) -> dict[str, Any]:
    """The body of a chat request. Equal questions asked anew need another seed to differ."""
    extra = dict(judge.extra or {})
    if isinstance(extra.get("seed"), int):
        extra["seed"] += repeat
    shown = without_system(messages) if judge.system_as_user else [dict(m) for m in messages]
    body = {"model": judge.model, "messages": shown, **fields, **extra}
    return {key: value for key, value in body.items() if value is not None}


def _opener(
    judge: Endpoint, place: Place, stack: AsyncExitStack
) -> Callable[[], httpx.AsyncClient]:
    """Makes clients of one connection, closed with the stack; no proxy on the way to ourselves."""
    try:
        import httpx
    except ImportError as error:
        raise JudgeError(
            "openai: needs httpx, which is not installed; pip install 'alignzoo[eval]'"
        ) from error
    headers = {"content-type": "application/json", "user-agent": "alignzoo"}
    if place.key is not None:
        headers["authorization"] = f"Bearer {place.key}"
    trust = not is_local(urlsplit(judge.url).hostname or "")

    def open_client() -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            headers=headers,
            verify=certificates,
            timeout=httpx.Timeout(None, connect=min(CONNECT_SECONDS, judge.timeout)),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            trust_env=trust,
        )
        stack.push_async_callback(client.aclose)
        return client

    try:
        certificates = httpx.create_ssl_context(trust_env=trust)  # slow to make, so only once
        open_client()  # shows at once whether the proxy settings make sense
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        raise JudgeError(
            f"openai: the proxy or certificate settings of the environment do not work: {error}"
        ) from error
    return open_client


def is_local(host: str) -> bool:
    """Whether a host is this machine or its private network, which no proxy leads to."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_private or address.is_loopback or address.is_link_local


def _split(url: str) -> SplitResult | None:
    """The parts of an address; None when it is none."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets without an end; a port that is no number, or too large
        return None
    return parts if known else None


def _cause(error: BaseException) -> str:
    """What went wrong, in words: some errors of the network have none of their own."""
    inner = error.__cause__ or error.__context__
    words = str(error) or (str(inner) if inner else "")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
