"""What the ids of a tokenizer mean, and whether two models read the same in them.

The files are read here and not by transformers, so that a plan can compare models at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

SHOWN = 3  # differing ids that a sentence lists


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's ids: what each stands for, which end an answer, which pads, the template."""

    tokens: Mapping[int, str]
    ends: frozenset[int]  # the tokenizer's own, and those of the generation settings
    end: int | None = None  # the tokenizer's own
    padding: int | None = None
    template: str | None = None


def vocabulary_of(tokenizer: Tokenizer, ends: Iterable[int] = ()) -> Vocabulary:
    """That of a loaded tokenizer; `ends` are further ids that end the model's answers."""
    end = tokenizer.eos_token_id if isinstance(tokenizer.eos_token_id, int) else None
    padding = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else None
    template = tokenizer.chat_template
    return Vocabulary(
        {number: token for token, number in tokenizer.get_vocab().items()},
        frozenset((*ends, *(() if end is None else (end,)))),
        end,
        padding,
        template if isinstance(template, str) else None,
    )


def vocabulary_in(folder: Path) -> Vocabulary | None:
    """That of a model's folder; None when it has no readable `tokenizer.json`."""
    try:
        file = _object(folder / "tokenizer.json")
        settings = {**_object(folder / "special_tokens_map.json"),
                    **_object(folder / "tokenizer_config.json")}  # fmt: skip
        tokens = dict(_tokens(file, settings))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # loading it says what is wrong
    if not tokens:
        return None
    numbers = {token: number for number, token in tokens.items()}
    end = numbers.get(_text(settings.get("eos_token")))
    padding = numbers.get(_text(settings.get("pad_token")))
    every = (*ends_in(folder), *(() if end is None else (end,)))
    return Vocabulary(tokens, frozenset(every), end, padding, _template(folder, settings))


def ends_in(folder: Path) -> tuple[int, ...]:
    """The ids that a folder's generation settings name as ends of an answer."""
    try:
        named = _object(folder / "generation_config.json").get("eos_token_id")
    except (OSError, ValueError, RecursionError):
        return ()
    several = named if isinstance(named, list) else [named]
    return tuple(number for number in several if isinstance(number, int))


def difference(own: Vocabulary, other: Vocabulary, rows: int | None = None) -> str:
    """How `other` reads ids, or the end of answers, otherwise than `own`; or an empty string."""
    if what := other_tokens(own, other, rows):
        return what
    if own.end is not None and other.ends and own.end not in other.ends:
        others = ", ".join(f"{n} ({other.tokens.get(n)!r})" for n in sorted(other.ends))
        return f"answers end with {own.end} ({own.tokens.get(own.end)!r}), not {others}"
    return ""


def other_tokens(own: Vocabulary, other: Vocabulary, rows: int | None = None) -> str:
    """How `other` reads ids that `own` may emit otherwise, or an empty string.

    `rows` is the size of the emitting model's vocabulary; ids beyond it cannot be emitted. An id
    that only pads is never read, so the other need not know it.
    """
    kept = [(n, token) for n, token in sorted(own.tokens.items()) if rows is None or n < rows]
    wrong = [(n, token) for n, token in kept if other.tokens.get(n) != token]
    wrong = [(n, token) for n, token in wrong if n in other.tokens or not _only_pads(n, own)]
    if wrong:
        shown = ", ".join(f"{n} ({token!r}, {_meant(n, other)})" for n, token in wrong[:SHOWN])
        more = ", ..." if len(wrong) > SHOWN else ""
        return f"{len(wrong)} of {len(kept)} ids mean another token, such as {shown}{more}"
    return ""


def _only_pads(number: int, own: Vocabulary) -> bool:
    return number == own.padding and number not in own.ends


def _meant(number: int, other: Vocabulary) -> str:
    return f"not {other.tokens[number]!r}" if number in other.tokens else "unknown to the other"


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} when there is no file."""
    value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _tokens(file: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    vocabulary = file.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, dict):  # BPE, WordPiece, WordLevel
        yield from ((int(number), token) for token, number in vocabulary.items())
    else:  # Unigram: pieces with their scores
        yield from ((number, piece[0]) for number, piece in enumerate(vocabulary))
    for added in file.get("added_tokens", []):
        yield int(added["id"]), str(added["content"])
    for number, added in settings.get("added_tokens_decoder", {}).items():
        yield int(number), str(added["content"])


def _text(token: Any) -> str:
    """A special token as its settings write it: text, or an object with the text."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    given = settings.get("chat_template")
    return given if isinstance(given, str) else None
