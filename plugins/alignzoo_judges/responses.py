"""What an HTTP response of a chat endpoint means: a reply, come again, or give up.

Field names are those of OpenAI's chat completions, which vLLM, SGLang, llama.cpp, TGI, Ollama,
LM Studio, `transformers serve` and most gateways share. Functions here touch no network.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from alignzoo import JudgeBusy, JudgeError, Reply, Usage

MOST_TOKENS = 2**53  # more than any reply has: a sum of prices could not hold it
QUOTED = 200  # characters of a server's own words in our sentences
BUSY = frozenset({408, 409, 425, 429})
ONE_QUESTION = frozenset({400, 413, 422, 451})  # what these say may concern this question alone
EXHAUSTED = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
SETTINGS = frozenset({"temperature", "logprobs", "top_logprobs", "max_tokens", "seed", "model"})
_TOO_LONG = re.compile(
    r"context.?(length|window|size)|maximum.?(context|model.?len|input)|too.?(long|many.?tokens)"
    r"|reduce the length|token count|number of tokens|(entity|payload|body|content) too large",
    re.IGNORECASE,
)


class Refusal(Exception):
    """The server takes a request of this form, but not this one; `param` is what it objects to."""

    def __init__(self, words: str, param: str | None) -> None:
        self.param = param
        super().__init__(words)


class Denied(JudgeError):
    """What a status means at the start; once others were answered it concerns one question."""

    def __init__(self, sentence: str, said: str) -> None:
        self.said = said  # the server's own words
        super().__init__(sentence)


@dataclass(frozen=True)
class Place:
    """What our sentences say about a server."""

    url: str
    model: str
    variable: str  # the environment variable that should hold the key
    key: str | None = field(repr=False)  # cut out of everything a server says

    @property
    def hint(self) -> str:
        """What may be wrong with the address."""
        if "v1" in urlsplit(self.url).path.split("/"):
            return ""
        return f"; most servers want /v1 at the end (--set judge.with.url={self.url}/v1)"

    def clean(self, words: str) -> str:
        """A server's own words, shortened, on one line, without the key."""
        line = " ".join(words.split())
        return (line.replace(self.key, "***") if self.key else line)[:QUOTED]


def read_chat(status: int, headers: Mapping[str, str], body: bytes, place: Place) -> Reply:
    """The reply in a response.

    Raises JudgeBusy when asking again may help, JudgeError when nothing will, and Refusal when
    the server objects to this request.
    """
    if status // 100 == 2:
        return _reply(_parsed(body), headers, place)
    raise_for(status, headers, body, place)
    raise JudgeError(f"{place.url}: answers {status}")


def raise_for(status: int, headers: Mapping[str, str], body: bytes, place: Place) -> None:
    """Raise what a status other than 2xx means."""
    error = _error_of(body)
    words = place.clean(str(error.get("message") or body[:1000].decode(errors="replace")))
    said = f"{status}: {words}"
    if status in (401, 403):
        raise Denied(_no_entry(status, words, place), said)
    if status == 402 or EXHAUSTED & {str(error.get("code")), str(error.get("type"))}:
        raise Denied(f"{place.url}: the account is exhausted ({status}): {words}", said)
    if status == 404:
        raise Denied(
            f"{place.url}: knows no model '{place.model}' or no chat completions (404): {words}"
            f"{place.hint}",
            said,
        )
    if status in BUSY or status >= 500:
        raise JudgeBusy(said, waiting_time(headers))
    if status in ONE_QUESTION:
        param = error.get("param")
        raise Refusal(words or f"status {status}", param if isinstance(param, str) else None)
    target = f" to {place.clean(headers['location'])}" if "location" in headers else ""
    raise Denied(
        f"{place.url}: answers {status}{target} instead of a chat completion: {words}; "
        f"check `url`{place.hint}",
        said,
    )


def refused(refusal: Refusal, place: Place, tokens: str, *, first: bool) -> Reply:
    """The reply to a question the server will never take.

    Raises JudgeError when it objects to a setting and nothing was answered yet: it will take no
    question at all.
    """
    words = str(refusal)
    if _TOO_LONG.search(words):
        return Reply(error=f"context: {words}")
    if first and refusal.param in SETTINGS | {tokens}:
        raise JudgeError(
            f"{place.url}: refuses the setting '{refusal.param}': {words}; "
            f"leave it out with `extra: {{{refusal.param}: null}}` "
            f"(--set 'judge.with.extra={{{refusal.param}: null}}') or give another value there"
        )
    return Reply(error=f"refused: {words}")


def waiting_time(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait, from `retry-after-ms` or `Retry-After`; None: no word."""
    seconds = _number(headers.get("retry-after-ms"), 1000.0)
    if seconds is None:
        seconds = _number(headers.get("retry-after"))
    if seconds is None:
        seconds = _until(headers.get("retry-after"))
    return None if seconds is None else max(0.0, seconds)


def offered(body: bytes) -> int:
    """How many alternatives of its first token a chat completion lists."""
    try:
        return len(_alternatives(_parsed(body)["choices"][0].get("logprobs")))
    except (KeyError, IndexError, TypeError, AttributeError):
        return 0


def served_model(body: bytes) -> str | None:
    """The model a chat completion says it came from."""
    return _said(_parsed(body).get("model"))


def listed_models(body: bytes) -> dict[str, int | None]:
    """Names in a list of models and their context lengths; empty when it is no such list."""
    try:
        rows = json.loads(body)["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {str(row["id"]): _context_length(row) for row in rows if "id" in row}


# --- a completion ----------------------------------------------------------------------------


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:  # also bytes that are no text
        raise JudgeBusy(f"a body of {len(body)} bytes that is not JSON") from error
    if not isinstance(found, dict):
        raise JudgeBusy("a body that is no JSON object")
    return found


def _reply(completion: dict[str, Any], headers: Mapping[str, str], place: Place) -> Reply:
    error = completion.get("error")
    if error:  # some gateways report errors under status 200
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 503
        raise_for(status, headers, json.dumps(completion).encode(), place)
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        text = _text(message.get("content"))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        usage = _usage(completion.get("usage"), "")
        raise JudgeBusy("a completion without choices[0].message", usage=usage) from error
    reply = Reply(
        text=text,
        top_logprobs=_first_token(choice.get("logprobs")),
        usage=_usage(completion.get("usage"), text),
        finish=_word(choice.get("finish_reason")),
        model=_said(completion.get("model")),
        fingerprint=_said(completion.get("system_fingerprint")),
    )
    return _stopped(reply, message.get("refusal"), place)


def _stopped(reply: Reply, refusal: Any, place: Place) -> Reply:
    if reply.finish == "error":
        raise JudgeBusy("a completion that broke off with an error", usage=reply.usage)
    if reply.finish == "content_filter":
        return replace(reply, error="refused: stopped by the server's content filter")
    if refusal and not reply.text:
        return replace(reply, error=f"refused: {place.clean(str(refusal))}")
    return reply


def _text(content: Any) -> str:
    """The text of a message; null is none, and some servers send it in parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type", "text") == "text")


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """Log-probs of the first token's alternatives: log of the summed P of equal spellings.

    Several entries of a vocabulary may read the same; an entry that is there twice counts once.
    """
    try:
        entries = [(str(x["token"]), float(x["logprob"])) for x in _alternatives(logprobs)]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    found: dict[str, float] = {}
    for token, value in dict.fromkeys(entries):
        if math.isfinite(value):
            found[token] = _log_sum(found[token], value) if token in found else value
    return found or None


def _log_sum(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def _alternatives(logprobs: Any) -> list[Any]:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return list(content[0].get("top_logprobs") or []) if content else []


def _usage(usage: Any, text: str) -> Usage | None:
    """Tokens; what is no count, or 0 where there were some, is not known."""
    try:
        counts = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not counts[0] or (text and not counts[1]):
        return None
    return Usage(*counts) if all(0 <= n < MOST_TOKENS for n in counts) else None


def _said(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _word(value: Any) -> str | None:
    return None if value is None else str(value)


# --- errors ------------------------------------------------------------------------------------


def _error_of(body: bytes) -> dict[str, Any]:
    """The error object of a body: OpenAI's {"error": {...}}, or {"detail"/"message": text}."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    error = found.get("error", found)
    if isinstance(error, dict):
        return {**error, "message": error.get("message") or error.get("detail")}
    return {"message": error}


def _no_entry(status: int, words: str, place: Place) -> str:
    if place.key is None:
        return (
            f"{place.url}: wants a key ({status}); set the environment variable "
            f"{place.variable}, or name another one with `key_variable`"
        )
    return f"{place.url}: refuses the key in {place.variable} ({status}): {words}"


def _number(text: str | None, unit: float = 1.0) -> float | None:
    try:
        value = float(text or "") / unit
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _until(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text or "").timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None


def _context_length(row: Mapping[str, Any]) -> int | None:
    names = ("max_model_len", "context_length", "context_window", "max_context_length")
    found = (row[name] for name in names if isinstance(row.get(name), int))
    return next((n for n in found if n > 0), None)
