"""Which tokens of a chat the assistant said, where all of its turns are learnt.

A template with `{% generation %}` blocks marks them itself. Otherwise the chat is rendered up to
each turn: what is new after the opening of the turn was said in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import Sample, Tokens
from alignzoo.data.chats import Chat, render, unwritten
from alignzoo.data.reader import Reader
from alignzoo.data.rows import shared_length

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def all_turns(
    sample: Sample, answered: Tokens, reader: Reader, place: str
) -> tuple[Tokens, tuple[str, ...]]:
    """The sequence of a chat with every turn of the assistant learnt, and what is not written of
    them; `answered` has the last turn as its response.

    Raises DataError when the template writes a turn otherwise once others follow.
    """
    chat = Chat.of(sample, reader, place)
    said = [n for n, message in enumerate(chat.messages) if message["role"] == "assistant"]
    if not said:
        return answered, ()
    text = render(chat, reader, place, opening=False)
    lost = (unwritten(chat.messages[n], text) for n in said)
    whole = answered.prompt + answered.response
    if GENERATION.search(reader.template) and text.isascii():
        earlier = _marked(chat, whole, reader, place)
    else:
        earlier = _rendered(chat, said, whole, reader, place)
    learnt = [n in earlier or n >= len(answered.prompt) for n in range(len(whole))]
    first = learnt.index(True)
    tokens = Tokens(whole[:first], whole[first:], tuple(learnt[first:]))
    return tokens, tuple(f"{part} of an earlier turn" for part in lost if part)


def _marked(chat: Chat, whole: tuple[int, ...], reader: Reader, place: str) -> set[int]:
    """The numbers of the tokens that the template's blocks mark."""
    made: Any = reader.tokenizer.apply_chat_template(
        [dict(message) for message in chat.messages],
        tools=list(chat.tools) if chat.tools else None,
        return_assistant_tokens_mask=True,
    )
    found = {n for n, is_said in enumerate(made["assistant_masks"]) if is_said}
    if max(found, default=-1) >= shared_length(made["input_ids"], whole):
        raise DataError(_rewritten(place))
    return found


def _rendered(
    chat: Chat, said: Sequence[int], whole: tuple[int, ...], reader: Reader, place: str
) -> set[int]:
    """The numbers of the tokens between the opening of a turn and its end, without white space
    after it.
    """
    text = render(chat, reader, place, opening=False)
    found: set[int] = set()
    for n in said:
        closed = render(Chat(chat.messages[: n + 1], chat.tools), reader, place, opening=False)
        if not text.startswith(closed):
            raise DataError(_rewritten(place))
        begin = 0
        if n:
            before = render(Chat(chat.messages[:n], chat.tools), reader, place, opening=True)
            begin = shared_length(reader.ids(before, place, alone=False), whole)
        end = shared_length(reader.ids(closed, place, alone=False), whole)
        while end > begin and reader.is_blank(whole[end - 1]):
            end -= 1
        found.update(range(begin, end))
    return found


def _rewritten(place: str) -> str:
    return (
        f"{place}: the chat template writes an earlier turn in another way once others follow, so "
        "that it cannot be learnt; use data.learn: last, or another template"
    )
