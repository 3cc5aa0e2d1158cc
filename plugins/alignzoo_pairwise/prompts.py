"""Prompts from a file of the user's, or the few that come with the plug-in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignzoo import DataError, PromptSample

BUILT_IN = Path(__file__).with_name("prompts.jsonl")
SUFFIXES = (".jsonl", ".json", ".txt")
PROMPT_KEYS = ("prompt", "instruction", "question", "messages")
LATER = "turns"  # in a prompt's meta: what the user says after the first reply


def check_file(path: Path) -> None:
    """Raise DataError when there is no such file or its kind is not known."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: unknown kind of file; known are {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; give prompts as one of {', '.join(SUFFIXES)}")


def read_prompts(path: Path) -> Iterator[PromptSample]:
    """The prompts in the order of the file; raises DataError with place and cause."""
    check_file(path)
    for number, (place, value) in enumerate(_values(path), 1):
        try:
            yield _sample(value, number)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, text or object) of every row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    if path.suffix == ".json":
        rows = _json(text, str(path))
        if not isinstance(rows, list):
            raise DataError(f"{path}: not a list of prompts; one object per line is a .jsonl file")
        yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{path}:{number}"
            yield place, line.strip() if path.suffix == ".txt" else _json(line, place)


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON: {error}") from None


def _sample(value: Any, number: int) -> PromptSample:
    """A prompt; its `meta` has the row's own, `id` (default: the row's number) and `category`."""
    if isinstance(value, str):
        return PromptSample(value, {"id": number})
    if not isinstance(value, dict):
        raise DataError("neither a text nor an object")
    named = {key: value[key] for key in ("id", "category") if key in value}
    meta = {"id": number, **_meta(value), **named}
    turns = value.get(LATER)
    if turns is None:
        return PromptSample(_prompt(value), meta)
    if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
        raise DataError(f"{LATER} is not a list of texts")
    return PromptSample(turns[0], {**meta, LATER: turns[1:]} if turns[1:] else meta)


def _meta(row: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise DataError("meta is not an object")
    return {key: x for key, x in meta.items() if key != LATER}  # our own key


def _prompt(row: Mapping[str, Any]) -> str | tuple[Mapping[str, str], ...]:
    key = next((key for key in PROMPT_KEYS if key in row), None)
    if key is None:
        raise DataError(f"no prompt under {', '.join(PROMPT_KEYS)} or {LATER}")
    value = row[key]
    if isinstance(value, str) and value.strip():
        extra = row.get("input") if key == "instruction" else None
        return f"{value}\n\n{extra}" if extra else value
    if isinstance(value, list) and value and all(map(_is_message, value)):
        if value[-1]["role"] != "user":
            raise DataError(
                f"{key}: the last message must be the user's, not the {value[-1]['role']}'s"
            )
        return tuple({"role": m["role"], "content": m["content"]} for m in value)
    raise DataError(f"{key} is neither a text nor a list of messages with role and content")


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(part), str) for part in ("role", "content")
    )
