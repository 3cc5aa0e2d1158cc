"""The messages of a chat as files hold them: OpenAI's layout and ShareGPT's, with tool calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import Message, Response

SPEAKERS = {  # ShareGPT's `from` -> role
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
}
CALL = "function_call"  # ShareGPT's speaker of a tool call, whose value is {"name", "arguments"}


def messages_of(value: Any, key: str) -> tuple[Message, ...]:
    """The messages of a list; raises DataError with the place in the row."""
    if value is None:
        raise DataError(f"{key} is missing; give a text or a list of messages")
    if not is_list(value):
        raise DataError(f"{key} is {describe(value)}, not a text or a list of messages")
    if not value:
        raise DataError(f"{key} is an empty list")
    return tuple(_message(message, f"{key}[{i}]") for i, message in enumerate(value))


def dialogue(value: Any, key: str) -> tuple[Message, ...]:
    """Messages that end with the assistant's answer; one message may come without a list."""
    messages = messages_of([value] if isinstance(value, Mapping) else value, key)
    if messages[-1]["role"] != "assistant":
        raise DataError(f"{key} ends with a {messages[-1]['role']} message, not the assistant's")
    return messages


def answer_in(message: Message) -> Response:
    """The answer that an assistant's message is; the message is kept if it is more than a text."""
    text = message["content"]
    plain = text is not None and set(message) == {"role", "content"}
    return Response(text or "", message=None if plain else message)


def message_of(response: Response) -> Message:
    """The assistant's message that an answer is."""
    return response.message or {"role": "assistant", "content": response.text}


def answerable(prompt: tuple[Message, ...], key: str) -> tuple[Message, ...]:
    """The messages, if one can answer them."""
    if not any(message["content"] and message["content"].strip() for message in prompt):
        raise DataError(f"{key}: the prompt is empty")
    if prompt[-1]["role"] == "assistant":
        raise DataError(f"{key}: the prompt ends with an assistant message")
    return prompt


def text_of(value: Any, key: str, wanted: str = "a text") -> str:
    """The value, if it is a text that can be written as UTF-8."""
    if value is None:
        raise DataError(f"{key} is missing; give {wanted}")
    if not isinstance(value, str):
        raise DataError(f"{key} is {describe(value)}, not {wanted}")
    _encodable(value, key)
    return value


def is_list(value: Any) -> bool:
    """Whether a value of a row is a list."""
    return isinstance(value, (list, tuple))


def describe(value: Any) -> str:
    """A value in words, as far as JSON has a word for it: "a list", "null"."""
    names = {type(None): "null", str: "a text", bool: "a truth value", dict: "an object"}
    names |= {int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")


def _message(value: Any, key: str) -> Message:
    if not isinstance(value, Mapping):
        raise DataError(f"{key} is {describe(value)}, not a message with role and content")
    if "role" not in value and "from" in value:
        value = _from_sharegpt(value, key)
    role, content = text_of(value.get("role"), f"{key}.role"), value.get("content")
    calls = value.get("tool_calls")
    if calls is not None and not is_list(calls):
        raise DataError(f"{key}.tool_calls is {describe(calls)}, not a list")
    if content is not None or not calls:
        content = text_of(content, f"{key}.content")
    written = {name: x for name, x in value.items() if x is not None}
    for name in written.keys() - {"role", "content"}:
        _encodable(written[name], f"{key}.{name}")
    return written | {"role": role, "content": content}


def _from_sharegpt(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A message of ShareGPT's layout, `from` and `value`, in OpenAI's."""
    speaker, said = text_of(value["from"], f"{key}.from"), value.get("value")
    rest = {name: x for name, x in value.items() if name not in ("from", "value")}
    if speaker == CALL:
        return rest | {"role": "assistant", "content": None, "tool_calls": [_call(said, key)]}
    if speaker not in SPEAKERS:
        known = ", ".join((*SPEAKERS, CALL))
        raise DataError(f"{key}.from is {speaker!r}, none of {known}")
    return rest | {"role": SPEAKERS[speaker], "content": text_of(said, f"{key}.value")}


def _call(value: Any, key: str) -> dict[str, Any]:
    try:
        call = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        call = None
    if not isinstance(call, Mapping) or "name" not in call:
        raise DataError(f"{key}.value is no tool call with name and arguments, written as JSON")
    return {"type": "function", "function": dict(call)}


def _encodable(value: Any, key: str) -> None:
    try:
        (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{key} holds half a character (a lone surrogate)") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{key} holds something that JSON has no word for") from error
