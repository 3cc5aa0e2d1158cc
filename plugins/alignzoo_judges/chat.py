"""Conversations as models take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def without_system(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The same conversation for models that know no system role.

    What system messages say is put before the next user message, an empty line between them; with
    no user message after it, it becomes one.
    """
    found: list[dict[str, str]] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user":
            found.append(_user([*waiting, message["content"]]))
            waiting = []
        else:
            found.append(dict(message))
    return [*found, _user(waiting)] if waiting else found


def _user(parts: Sequence[str]) -> dict[str, str]:
    return {"role": "user", "content": "\n\n".join(parts)}
