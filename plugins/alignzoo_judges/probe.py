"""What a server can do, found out with two small requests before the first question."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

from alignzoo import Capabilities, JudgeBusy, JudgeError
from alignzoo_judges.line import Form, Line, Unreachable
from alignzoo_judges.responses import (
    Refusal,
    listed_models,
    offered,
    raise_for,
    read_chat,
    served_model,
)

T = TypeVar("T")

ALTERNATIVES = 5  # what AlpacaEval 2 needs
GREETING = ({"role": "user", "content": "Answer with yes."},)
LONGEST_WAIT = 30.0  # seconds between two tries
LIST_TRIES = 3  # a server need not have a list, so it is not worth more
SHOWN = 5  # names of models in a sentence

Models = Mapping[str, int | None]  # name -> context length


async def probe(
    form: Form, line: Line, revision: str | None, attempts: int
) -> tuple[Capabilities, str]:
    """(capabilities, the field that limits a reply's tokens).

    Raises JudgeError when the server cannot be reached, refuses the key, does not have the model,
    or stays busy for all the attempts.
    """
    url = line.place.url
    try:
        models = await _models(line, attempts)
        try:
            return await _greet(form, line, models, revision, attempts)
        except JudgeError as error:
            raise JudgeError(f"{error}{_others(form.model, models)}") from error
    except Unreachable as error:
        raise JudgeError(
            f"{url}: cannot be reached ({error}); is the server running, and is `url` right?"
        ) from error


async def _models(line: Line, attempts: int) -> Models:
    """The models a server lists, with context lengths where it says so. Not every server lists."""

    async def ask() -> Models:
        status, headers, body = await line.send("/models")
        if status in (401, 429) or status >= 500:
            raise_for(status, headers, body, line.place)
        return listed_models(body) if status == 200 else {}

    try:
        return await _patient(min(LIST_TRIES, attempts), ask)
    except Unreachable:
        raise
    except JudgeBusy:
        return {}


async def _greet(
    form: Form, line: Line, models: Models, revision: str | None, attempts: int
) -> tuple[Capabilities, str]:
    """The richest form of request that the server takes, and what it says then."""
    first: Refusal | None = None
    for tokens_field, fields in _forms():
        try:
            model, alternatives = await _first_reply(form, line, fields, attempts)
        except Refusal as refusal:
            first = first or refusal
            continue
        capabilities = Capabilities(
            model=form.model,
            revision=revision or (model if model != form.model else None),
            top_logprobs=min(ALTERNATIVES, alternatives),
            context_length=models.get(form.model),
            served=model,
        )
        return capabilities, tokens_field
    raise JudgeError(f"{line.place.url}: refuses every form of question to '{form.model}': {first}")


def _forms() -> Iterator[tuple[str, dict[str, Any]]]:
    """From the usual form to what reasoning models take, which may need more than one token."""
    logprobs = {"logprobs": True, "top_logprobs": ALTERNATIVES}
    for tokens_field in ("max_tokens", "max_completion_tokens"):
        yield tokens_field, {tokens_field: 1, **logprobs}
        yield tokens_field, {tokens_field: 1}
    yield "max_completion_tokens", {"max_completion_tokens": 64}


async def _first_reply(
    form: Form, line: Line, fields: Mapping[str, Any], attempts: int
) -> tuple[str | None, int]:
    """The model that says it answered a greeting, and how many alternatives it lists."""
    body = form.body(GREETING, fields)

    async def ask() -> tuple[str | None, int]:
        status, headers, content = await line.send("/chat/completions", body)
        read_chat(status, headers, content, line.place)
        return served_model(content), offered(content)

    try:
        return await _patient(attempts, ask)
    except Unreachable:
        raise
    except JudgeBusy as error:
        raise JudgeError(
            f"{line.place.url}: no reply to a first question in {attempts} tries ({error}); "
            "is `url` that of a chat endpoint?"
        ) from error


async def _patient(tries: int, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer. No connection at all is final: nothing has worked yet.

    Raises JudgeBusy when the last try is busy too.
    """
    for attempt in range(1, tries):
        try:
            return await ask()
        except Unreachable:
            raise
        except JudgeBusy as error:
            await asyncio.sleep(_wait(attempt, error.after))
    return await ask()


def _wait(attempt: int, after: float | None) -> float:
    """Seconds: what the server asks for, else 0.25 * 2^attempt jittered; at most LONGEST_WAIT."""
    wait = 0.25 * 2**attempt * random.uniform(0.5, 1.0) if after is None else after
    return min(wait, LONGEST_WAIT)


def _others(model: str, models: Models) -> str:
    """Which models there are instead, when the server lists them and this one is not there."""
    if not models or model in models:
        return ""
    names = sorted(models)
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"; it lists {', '.join(names[:SHOWN])}{rest}"
