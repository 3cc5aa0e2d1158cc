"""Tokens as people can see them: white space, control characters and parts of characters too.

A shown text marks what is no letter of its own: what stands between `OPEN` and `CLOSE`, two private
characters that no shown text holds otherwise, is a sign for something else.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

OPEN, CLOSE = "\ue003", "\ue004"
PART = f"{OPEN}⋯{CLOSE}"  # a token that only goes on with a character
SIGNS = {" ": "·", "\n": "⏎", "\t": "⇥", "\x7f": "␡"}
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}  # categories of what cannot be seen
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "▁"  # how sentencepiece writes one


def visible(text: str) -> str:
    """A text in which everything can be seen, and nothing acts."""
    shown = "".join(map(_seen, text))
    combines = text[:1] and unicodedata.category(text[0]).startswith("M")
    return f"{OPEN}◌{CLOSE}{shown}" if combines else shown


def _seen(char: str) -> str:
    if char in SIGNS:
        return f"{OPEN}{SIGNS[char]}{CLOSE}" + ("\n" if char == "\n" else "")
    if unicodedata.category(char) not in HIDDEN:
        return char
    sign = chr(0x2400 + ord(char)) if ord(char) < 32 else f"⟨U+{ord(char):04X}⟩"
    return f"{OPEN}{sign}{CLOSE}"


def bare(shown: str) -> str:
    """A shown text without the marks around signs."""
    return shown.replace(OPEN, "").replace(CLOSE, "")


def _byte_letters() -> dict[str, int]:
    """The letters with which byte-level tokenizers write bytes, as GPT-2 chose them."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in own]
    return {chr(b): b for b in own} | {chr(256 + n): b for n, b in enumerate(others)}


LETTERS = _byte_letters()


@dataclass(frozen=True, eq=False)
class Pieces:
    """What each token of a tokenizer stands for."""

    tokenizer: Tokenizer

    @cached_property
    def _decoders(self) -> set[str]:
        """The kinds of decoders that the tokenizer's file names."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        return set(_kinds(json.loads(backend.to_str()).get("decoder"))) if backend else set()

    @cached_property
    def _special(self) -> dict[int, str]:
        """Added tokens; those that are special are signs, so that a text cannot imitate one."""
        added = self.tokenizer.added_tokens_decoder.items()
        return {
            n: f"{OPEN}{bare(visible(str(token)))}{CLOSE}" if token.special else str(token)
            for n, token in added
        }

    @cached_property
    def _known(self) -> dict[tuple[int | None, int], str | bytes]:
        return {}

    def shown(self, ids: Sequence[int], before: int | None = None) -> list[str]:
        """A shown text for each token of a text that goes on from the token `before`."""
        pieces = []
        for number in ids:
            pieces.append(self._piece(before, number))
            before = number
        return _joined(pieces)

    def alone(self, number: int) -> str:
        """The shown text of a token by itself, as the first word of nothing."""
        return _joined([self._piece(None, number)])[0]

    def _piece(self, before: int | None, number: int) -> str | bytes:
        key = (before, number)
        if key not in self._known:
            self._known[key] = self._found(before, number)
        return self._known[key]

    def _found(self, before: int | None, number: int) -> str | bytes:
        """Its text, or its bytes where it may be a part of a character."""
        if number in self._special:
            return self._special[number]
        token = self.tokenizer.convert_ids_to_tokens(number)
        if not isinstance(token, str) or not token:
            return f"{OPEN}⟨id {number}⟩{CLOSE}"
        if (raw := self._raw(token)) is not None:
            return raw
        if SPACE in token and self._decoders & {"Metaspace", "Replace"}:
            return token.replace(SPACE, " ")
        return self._going_on(before, number)

    def _raw(self, token: str) -> bytes | None:
        """The bytes of a token that is made of bytes."""
        if "ByteLevel" in self._decoders and all(char in LETTERS for char in token):
            return bytes(LETTERS[char] for char in token)
        found = BYTE.fullmatch(token)
        return bytes([int(found[1], 16)]) if found else None

    def _going_on(self, before: int | None, number: int) -> str:
        """The text with which a token goes on from the one before it."""
        own = "" if before is None else self._text([before])
        both = self._text([number] if before is None else [before, number])
        return both[len(own) :] if both.startswith(own) else self._text([number])

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _kinds(decoder: object) -> Iterator[str]:
    if isinstance(decoder, dict):
        yield str(decoder.get("type"))
        for part in decoder.get("decoders", []):
            yield from _kinds(part)


def _joined(pieces: Sequence[str | bytes]) -> list[str]:
    """Shown texts; a character that lies over several tokens stands at the first of them."""
    shown, at = [""] * len(pieces), 0
    while at < len(pieces):
        piece = pieces[at]
        if isinstance(piece, str):
            shown[at] = piece if piece.startswith(OPEN) else visible(piece)
            at += 1
            continue
        end = next((n for n in range(at, len(pieces)) if isinstance(pieces[n], str)), len(pieces))
        run = [x for x in pieces[at:end] if isinstance(x, bytes)]
        shown[at:end] = _bytes_shown(run)
        at = end
    return shown


def _bytes_shown(run: Sequence[bytes]) -> list[str]:
    owners = [owner for owner, part in enumerate(run) for _ in part]
    whole, at = b"".join(run), 0
    texts = [""] * len(run)
    while at < len(whole):
        char, size = _character(whole[at : at + 4])
        owner = owners[at]
        if char:
            texts[owner] += visible(char) if not texts[owner] else "".join(map(_seen, char))
        else:
            texts[owner] += f"{OPEN}⟨{whole[at]:02X}⟩{CLOSE}"
        at += size
    return [text or PART for text in texts]


def _character(some: bytes) -> tuple[str, int]:
    """The first character and how many bytes it takes; no character where there is none."""
    for size in range(1, len(some) + 1):
        try:
            return some[:size].decode("utf-8"), size
        except UnicodeDecodeError:
            continue
    return "", 1
