"""Chats that somebody rendered into plain prompts, found before anything is loaded or trained."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import DataError
from alignzoo.data.control import is_markup
from alignzoo.data.reader import Reader
from alignzoo.data.samples import DataSource, check_bad, load_samples


def check_prompts(source: DataSource, model: Path) -> None:
    """Look for plain prompts of a local file that spell the turns of a local model's chat template.

    Raises DataError as the stage would. Nothing heavy is imported unless such letters are there.
    """
    path = Path(source.name)
    letters = _letters(model) if path.is_file() else ()
    if not letters or not _may_hold(path, letters):
        return
    loaded = load_samples(replace(source, max_bad=1.0))
    plain = [
        (sample.prompt, place)
        for sample, place in zip(loaded.samples, loaded.places, strict=True)
        if isinstance(sample.prompt, str) and any(token in sample.prompt for token in letters)
    ]
    bad = list(_refused(plain, model)) if plain else []
    if bad and not source.max_bad:
        raise DataError(bad[0])
    check_bad(source.name, [*loaded.bad, *bad], loaded.read, source.max_bad)


def _refused(prompts: Iterable[tuple[str, str]], model: Path) -> Iterable[str]:
    from transformers import AutoTokenizer

    reader = Reader(AutoTokenizer.from_pretrained(model, trust_remote_code=False))
    for prompt, place in prompts:
        try:
            reader.protected_prompt(prompt, place)
        except DataError as error:
            yield str(error)


def _letters(model: Path) -> tuple[str, ...]:
    """The special tokens that the chat template of a folder names: turns are among them."""
    settings, added = _json(model / "tokenizer_config.json"), _json(model / "tokenizer.json")
    file = model / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else ""
    template += str(settings.get("chat_template") or "")
    end = settings.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    special = (t["content"] for t in added.get("added_tokens") or () if t.get("special"))
    return tuple(
        token
        for token in special
        if is_markup(token) and (token in template or (token == end and "eos_token" in template))
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # loading says what is wrong, or a plug-in knows the name
    return found if isinstance(found, dict) else {}


def _may_hold(path: Path, letters: Iterable[str]) -> bool:
    """Whether one of the tokens stands in a file; one that is packed is read to know."""
    if path.suffix not in (".jsonl", ".json"):
        return True
    data = path.read_bytes()
    return b"\\u003c" in data or any(token.encode() in data for token in letters)
