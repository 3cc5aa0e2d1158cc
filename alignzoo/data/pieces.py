"""Texts to ids piece by piece: a tokenizer reads what follows a control token by itself.

So a prompt that several answers follow is read once, and so is what a template writes in every
chat. Control tokens are found before all else: ids(a + token + b) = ids(a) + ids(token + b).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

KEPT = 50_000  # pieces whose ids are remembered before all are forgotten
PROBE = ("One  two, 3", "\nvier Ünf ", " six", "7\n\n", "")  # between any two control tokens
Text: TypeAlias = tuple[str, bool]  # and whether the tokenizer adds its BOS


@dataclass(frozen=True, eq=False)
class Pieces:
    """A tokenizer without its Python part, for texts that are cut before control tokens."""

    backend: Any  # tokenizers.Tokenizer
    starts: re.Pattern[str] | None  # where a text is cut
    known: dict[Text, tuple[int, ...]] = field(default_factory=dict)

    def ids(self, text: str, *, alone: bool) -> tuple[int, ...]:
        """The ids of a text."""
        pieces = self._cut(text, alone)
        self._read(piece for piece in pieces if piece not in self.known)
        return tuple(chain.from_iterable(map(self.known.__getitem__, pieces)))

    def prepare(self, texts: Iterable[Text]) -> None:
        """Read several texts at a time, which is cheaper; `ids` of each finds it read."""
        if len(self.known) > KEPT:
            self.known.clear()
        every = dict.fromkeys(piece for text in texts for piece in self._cut(*text))
        self._read(piece for piece in every if piece not in self.known)

    def _cut(self, text: str, alone: bool) -> list[Text]:
        if alone or not self.starts:
            return [(text, alone)]
        return [(piece, False) for piece in self.starts.split(text) if piece]

    def _read(self, pieces: Iterable[Text]) -> None:
        new = list(pieces)
        self.backend.no_truncation()  # whoever else asks the tokenizer may have set them
        self.backend.no_padding()
        self.backend.encode_special_tokens = False
        for added in {alone for _, alone in new}:
            some = [text for text, alone in new if alone == added]
            made = self.backend.encode_batch_fast(some, add_special_tokens=added)
            for text, found in zip(some, made, strict=True):
                self.known[text, added] = tuple(found.ids)


def pieces_of(tokenizer: Tokenizer) -> Pieces | None:
    """How this tokenizer's texts are read in pieces; None where they may not be."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    letters = getattr(tokenizer, "split_special_tokens", False)  # are control tokens letters?
    if backend is None or letters or getattr(backend.model, "dropout", None):
        return None
    tokens = sorted(_clear(list(tokenizer.added_tokens_decoder.values())))
    starts = re.compile(f"(?={'|'.join(map(re.escape, tokens))})") if tokens else None
    made = Pieces(backend, starts)
    return made if _agrees(made, tokens, tokenizer) else None


def _clear(added: Sequence[Any]) -> Iterable[str]:
    """The special tokens that stand for themselves wherever their letters do: nothing around them
    is taken with them, and no other added token may begin before one and reach into it.
    """
    for token in (token for token in added if token.content):
        text = token.content
        own = token.special and not (token.normalized or token.lstrip or token.rstrip)
        others = [x.content for x in added if x is not token]
        openings = tuple(text[:n] for n in range(1, len(text)))
        if (
            own
            and not token.single_word
            and not any(text in x or x.endswith(openings) for x in others)
        ):
            yield text


def _agrees(pieces: Pieces, tokens: Sequence[str], tokenizer: Tokenizer) -> bool:
    """Whether the pieces of a text make what the tokenizer makes of the whole."""
    texts = [*(token.join(PROBE) for token in tokens), "".join(PROBE)]
    try:
        return all(
            pieces.ids(text, alone=alone)
            == tuple(tokenizer(text, add_special_tokens=alone, verbose=False)["input_ids"])
            for text in texts
            for alone in (True, False)
        )
    except Exception:  # it has no token for some letter, say; then each text tells
        return False
