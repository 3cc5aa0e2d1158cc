"""Style of an answer: its length, headers, list items and bold text, and two answers' contrast."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from alignzoo import DataError
from alignzoo_arena_hard.games import Array

BLOCK = re.compile(r"```([^`]*)```")
HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
ORDERED = re.compile(r"^\s*\d+\.\s", re.MULTILINE)
UNORDERED = re.compile(r"^\s*[-*+]\s", re.MULTILINE)
STARS = re.compile(r"\*\*[^*\n]+\*\*")
UNDERSCORES = re.compile(r"__[^_\n]+__")

RECORDED, WORDS = "recorded", "words"

LENGTH = (0,)
MARKDOWN = (1, 2, 3)
STYLE = (*LENGTH, *MARKDOWN)


@dataclass(frozen=True)
class Style:
    """The four counts of an answer."""

    tokens: float
    headers: float
    lists: float
    bold: float


TokenCount = Callable[[str, int | None], int]  # text, count on record -> tokens


def style_of(text: str, tokens: int) -> Style:
    """Counts of the Markdown outside of code blocks."""
    prose = without_code(text)
    return Style(
        tokens,
        len(HEADER.findall(prose)),
        len(ORDERED.findall(prose)) + len(UNORDERED.findall(prose)),
        len(STARS.findall(prose)) + len(UNDERSCORES.findall(prose)),
    )


def without_code(text: str) -> str:
    """The text without the contents of its code blocks, wherever else these stand, fences kept.

    As upstream does it: a block that holds only a space takes every space of the answer with it.
    """
    for block in BLOCK.findall(text):
        text = text.replace(block, "")
    return text


def table(styles: Sequence[Style]) -> Array:
    """[Q, 4] float64: tokens, headers, lists, bold."""
    return np.array([astuple(style) for style in styles], dtype=np.float64).reshape(-1, 4)


def relative(own: Array, other: Array) -> Array:
    """(m - b) / (m + b + 1) of every count; m [Q, 4] the candidate, b [Q, 4] the baseline: 2024.

    Upstream takes b - m; both the feature and the outcome change sign, so the fit is the same.
    """
    return (own - other) / (own + other + 1)


def density(own: Array, other: Array) -> Array:
    """Length (m - b) / (m + b); Markdown (m' - b') / (m' + b' + 1), m' = count / tokens: 2025.

    An answer without tokens has density 0, where upstream divides by 0.
    """
    tokens = _ratio(own[:, :1] - other[:, :1], own[:, :1] + other[:, :1])
    mine, theirs = (_ratio(x[:, 1:], x[:, :1]) for x in (own, other))
    return np.hstack([tokens, (mine - theirs) / (mine + theirs + 1)])


def _ratio(top: Array, bottom: Array) -> Array:
    return np.asarray(top / np.where(bottom == 0, 1, bottom) * (bottom != 0))


def token_count(tokenizer: str) -> TokenCount:
    """How tokens are counted: "recorded" (else words), "words", or a tokenizer's name or folder.

    Raises DataError when the tokenizer cannot be loaded.
    """
    if tokenizer == RECORDED:
        return lambda text, known: len(text.split()) if known is None else known
    if tokenizer == WORDS:
        return lambda text, known: len(text.split())
    encode = load_tokenizer(tokenizer)
    return lambda text, known: len(encode(text, add_special_tokens=False)["input_ids"])


def vocabulary_digest(tokenizer: str) -> str:
    """Sha256 (hex) of a tokenizer's tokens and ids."""
    vocabulary = sorted(load_tokenizer(tokenizer).get_vocab().items())
    return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()


def load_tokenizer(name: str) -> Any:
    """A tokenizer of transformers, from a folder or the hub."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise DataError(
            f"arena_hard: with.tokenizer: '{name}' is neither '{RECORDED}', '{WORDS}', a folder "
            f"with a tokenizer, nor one the hub has"
        ) from error
