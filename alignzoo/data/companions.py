"""Columns that stand beside a prompt and belong to it: system prompts, earlier turns, tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import Message, PromptText
from alignzoo.data.messages import is_list, messages_of, text_of

SYSTEM_KEYS = ("system", "system_prompt")


class Columns(dict[str, Any]):
    """A row that remembers which of its columns were used."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        """The row as it was read."""
        super().__init__(row)
        self._used: set[str] = set()
        self._answers: set[str] = set()

    def use(self, name: str) -> Any:
        """The column's value, which counts as used; None if it is not there."""
        self._used.add(name)
        return self.get(name)

    def answer(self, name: str) -> Any:
        """The same for an answer: an empty text is one."""
        self._answers.add(name)
        return self.use(name)

    @property
    def used(self) -> tuple[str, ...]:
        """The columns that were used and hold something, or an answer."""
        return tuple(
            name
            for name in self
            if name in self._used and (holds(self[name]) or self._is_empty_answer(name))
        )

    def _is_empty_answer(self, name: str) -> bool:
        return name in self._answers and self[name] == ""

    @property
    def ignored(self) -> tuple[str, ...]:
        """The columns that hold something nobody used."""
        return tuple(name for name in self if name not in self._used and holds(self[name]))


def holds(value: Any) -> bool:
    """Whether a value says anything: not null, and no empty text or list."""
    return value is not None and not (isinstance(value, str | list | dict) and not value)


def companions(row: Columns) -> tuple[Message, ...]:
    """The messages that stand before a prompt: the system's, and earlier turns."""
    return (*_system(row), *_history(row))


def joined(prompt: PromptText, before: tuple[Message, ...]) -> PromptText:
    """The prompt with what stands before it.

    A plain prompt stays plain text below a system text, and becomes a chat after earlier turns. A
    chat that begins with the same messages already is left as it is.
    """
    if not before:
        return prompt
    if isinstance(prompt, str):
        turns = before[-1]["role"] != "system"
        user = {"role": "user", "content": prompt}
        return (*before, user) if turns else f"{before[-1]['content']}\n\n{prompt}"
    if prompt[: len(before)] == before:
        return prompt
    if prompt[0]["role"] == "system" and before[0]["role"] == "system":
        raise DataError("the system column and the chat's own system message differ; keep one")
    return before + prompt


def tools_of(row: Columns) -> list[Any]:
    """The `tools` column, a list of JSON schemas or the JSON text of one."""
    value: Any = row.get("tools")
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except ValueError:
            return []  # another thing of that name: it is told as ignored
    if not is_list(value) or not all(isinstance(tool, Mapping) for tool in value):
        return []
    row.use("tools")
    return list(value)


def _system(row: Columns) -> tuple[Message, ...]:
    key = next((key for key in SYSTEM_KEYS if isinstance(row.get(key), str) and row[key]), None)
    if key is None:
        return ()
    return ({"role": "system", "content": text_of(row.use(key), key)},)


def _history(row: Columns) -> tuple[Message, ...]:
    """Earlier turns: [question, answer] pairs, or messages; another `history` is not ours."""
    value = row.get("history")
    if not is_list(value) or not value:
        return ()
    if all(isinstance(turn, Mapping) for turn in value):
        return messages_of(row.use("history"), "history")
    if not all(is_list(turn) and len(turn) == 2 for turn in value):
        return ()
    roles = ("user", "assistant")
    return tuple(
        {"role": role, "content": text_of(text, f"history[{i}]")}
        for i, turn in enumerate(row.use("history"))
        for role, text in zip(roles, turn, strict=True)
    )
