"""Chats through a tokenizer's template, and what the template leaves out of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import Message, Sample
from alignzoo.data.reader import Reader

THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # where messages keep reasoning
PLAIN = ("role", "content", "tool_calls", *THOUGHTS)
SHOWN = 40  # characters of a text that is left out


@dataclass(frozen=True)
class Chat:
    """Messages and tools as a template gets them, control tokens in their texts marked."""

    messages: tuple[Message, ...]
    tools: Sequence[Any] | None = None

    @classmethod
    def of(cls, sample: Sample, reader: Reader, place: str, *more: Message) -> Chat:
        """A sample's prompt, which is a chat, with more messages after it."""
        if isinstance(sample.prompt, str):
            raise TypeError("a plain prompt is no chat")
        messages = (reader.protected_message(m, place) for m in (*sample.prompt, *more))
        tools = sample.meta.get("tools")
        return cls(tuple(messages), reader.protected_in(tools, place) if tools else None)


def render(chat: Chat, reader: Reader, place: str, *, opening: bool) -> str:
    """The text of a chat; the template writes its own BOS. `opening`: with the answer's turn begun.

    Raises DataError without a template, and when it refuses the messages.
    """
    if not reader.template:
        raise DataError(
            f"{place}: the prompt is a list of messages, but the tokenizer has no chat template; "
            "use plain-text prompts or a model with one"
        )
    try:
        return str(
            reader.tokenizer.apply_chat_template(
                [dict(message) for message in chat.messages],
                tools=list(chat.tools) if chat.tools else None,
                add_generation_prompt=opening,
                tokenize=False,
            )
        )
    except (TemplateError, ValueError, TypeError) as error:
        raise DataError(f"{place}: the chat template refuses the messages: {error}") from error


def unwritten(message: Message, text: str) -> str | None:
    """The first part of a message that a rendered text lacks, in words; white space is nothing."""
    content = message["content"]
    if len(message) == 2 and (content in text or content.strip() in text):
        return None  # as usual
    parts = [(name, part.strip()) for name, part in _parts(message)]
    missing = [(name, part) for name, part in parts if part not in text]
    if not missing:
        return None
    whole = "".join(text.split())
    found = ((name, part) for name, part in missing if "".join(part.split()) not in whole)
    return next((f"{name} ({_short(part)!r})" for name, part in found), None)


def left_out_of(chat: Chat, text: str, reader: Reader) -> tuple[str, ...]:
    """What of a prompt a rendered text lacks, by kind: "of assistant turns", "the tools"."""
    lost = [f"parts of {m['role']} turns" for m in chat.messages if unwritten(m, text)]
    lost += [
        f"the message field '{name}'"
        for message in chat.messages
        if len(message) > 2
        for name in message
        if name not in PLAIN and name not in reader.template
    ]
    if chat.tools and "tools" not in reader.template:
        lost.append("the tools")
    return tuple(dict.fromkeys(lost))


def _parts(message: Message) -> Iterator[tuple[str, str]]:
    """What a template must write of a message: texts, reasoning, the names of called tools."""
    if content := message["content"]:
        yield "part of the content", content
    if len(message) == 2:
        return
    for name in THOUGHTS:
        if isinstance(message.get(name), str):
            yield f"the message's '{name}'", message[name]
    for call in message.get("tool_calls") or ():
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            yield "a tool call", function["name"]


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
