"""The way to one server: its connections, what every request holds, and what a failure means."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from alignzoo import JudgeBusy, JudgeError
from alignzoo_judges.chat import without_system
from alignzoo_judges.responses import Place

if TYPE_CHECKING:
    import httpx

WITHOUT_HTTPX = "openai: needs httpx, which is not installed; pip install 'alignzoo[eval]'"
CONNECT_SECONDS = 10.0
MOST_BYTES = 2**26  # of a response; a reply of 100,000 tokens with log-probs has a third of it


class Unreachable(JudgeBusy):
    """No connection at all: at the start a wrong address, later a server that restarts."""


@dataclass(frozen=True)
class Form:
    """What every chat request to a server holds."""

    model: str
    extra: Mapping[str, Any]
    system_as_user: bool

    def body(
        self, messages: Sequence[Mapping[str, str]], fields: Mapping[str, Any], repeat: int = 0
    ) -> dict[str, Any]:
        """A chat request. Equal questions asked anew need another seed to differ."""
        extra = dict(self.extra)
        if isinstance(extra.get("seed"), int):
            extra["seed"] += repeat
        shown = without_system(messages) if self.system_as_user else [dict(m) for m in messages]
        body = {"model": self.model, "messages": shown, **fields, **extra}
        return {key: value for key, value in body.items() if value is not None}


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


def opener(place: Place, timeout: float, stack: AsyncExitStack) -> Callable[[], httpx.AsyncClient]:
    """Makes clients of one connection, closed with the stack; no proxy on the way to ourselves."""
    try:
        import httpx
    except ImportError as error:
        raise JudgeError(WITHOUT_HTTPX) from error
    headers = {"content-type": "application/json", "user-agent": "alignzoo"}
    if place.key is not None:
        headers["authorization"] = f"Bearer {place.key}"
    trust = not is_local(urlsplit(place.url).hostname or "")

    def open_client() -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            headers=headers,
            verify=certificates,
            timeout=httpx.Timeout(None, connect=min(CONNECT_SECONDS, timeout)),
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


def _cause(error: BaseException) -> str:
    """What went wrong, in words: some errors of the network have none of their own."""
    inner = error.__cause__ or error.__context__
    words = str(error) or (str(inner) if inner else "")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
