"""The judge's prompt: a ChatML text with three places, filled in one pass."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from alignzoo import DataError

START, END = "<|im_start|>", "<|im_end|>"
ROLES = ("system", "user", "assistant")
PLACES = ("instruction", "output_1", "output_2")
PLACE = re.compile(r"\{(" + "|".join(PLACES) + r")\}")

Messages = tuple[Mapping[str, str], ...]


def read_template(text: str, source: str) -> Messages:
    """The messages of a ChatML text, their places unfilled; `source` names the file in errors.

    A text without <|im_start|> is one user message. White space around a message is dropped.

    Raises DataError when a place is missing or repeated, or a role is not known.
    """
    messages = tuple(_messages(text, source)) if START in text else (_message("user", text),)
    found = [place for message in messages for place in PLACE.findall(message["content"])]
    for place in PLACES:
        if found.count(place) != 1:
            raise DataError(
                f"{source}: has {{{place}}} {found.count(place)} times; a judge's template holds "
                "{instruction}, {output_1} and {output_2} once each"
            )
    return messages


def _messages(text: str, source: str) -> Sequence[Mapping[str, str]]:
    messages = []
    for part in text.split(START)[1:]:
        role, _, rest = part.partition("\n")
        if role.strip() not in ROLES:
            raise DataError(
                f"{source}: {START} is followed by {role.strip()!r}; known roles are "
                f"{', '.join(ROLES)}"
            )
        messages.append(_message(role.strip(), rest.split(END, 1)[0]))
    return messages


def _message(role: str, content: str) -> Mapping[str, str]:
    return {"role": role, "content": content.strip()}


def fill(template: Messages, instruction: str, first: str, second: str) -> Messages:
    """The messages with their places filled; braces and markers inside the values stay text."""
    values = {"instruction": instruction, "output_1": first, "output_2": second}
    return tuple(
        {**message, "content": PLACE.sub(lambda place: values[place[1]], message["content"])}
        for message in template
    )
