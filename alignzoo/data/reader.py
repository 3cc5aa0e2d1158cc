"""A tokenizer with the rules by which texts become ids, and what it needs to keep them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import Message
from alignzoo.data.control import RESERVED, Control, Letters, control_of, letters_of, text_filter
from alignzoo.data.pieces import Pieces, Text, pieces_of
from alignzoo.data.rows import shared_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True)
class Rules:
    """How texts and chats are read."""

    # Control tokens that a text spells: tokens, or letters. None: letters, but a plain prompt that
    # spells a turn is refused, because it may be a rendered chat.
    special: Literal["parse", "split"] | None = None
    template_cuts: Literal["refuse", "tell"] = "tell"  # a template that leaves out what is learnt
    learn: Literal["last", "all"] = "last"  # the answer alone, or every turn of the assistant


USUAL = Rules()


@dataclass(frozen=True)
class Embedding:
    """The model that is given the ids, and how many of them it has rows for."""

    model: str
    rows: int

    def lacks(self, token: str, number: int) -> str:
        """That a token has no row, with both numbers."""
        return (
            f"{token!r}, id {number}, but the embedding of '{self.model}' has {self.rows} rows; "
            "take the token out of the text, or resize the embedding"
        )


@dataclass(frozen=True, eq=False)
class Reader:
    """A tokenizer, its rules, where answers end, and the model that reads the ids, if known."""

    tokenizer: Tokenizer
    rules: Rules = USUAL
    ends: tuple[int, ...] = ()  # ids that end an answer
    embedding: Embedding | None = None

    @cached_property
    def control(self) -> Control:
        """The tokenizer's control tokens."""
        return control_of(self.tokenizer)

    @cached_property
    def template(self) -> str:
        """The source of the chat template; empty without one."""
        return str(self.tokenizer.chat_template or "")

    @cached_property
    def _letters(self) -> Letters | None:
        return letters_of(self.tokenizer, self.control)

    @cached_property
    def _pieces(self) -> Pieces | None:
        return pieces_of(self.tokenizer)

    @cached_property
    def content(self) -> str:
        """Hash of all in the tokenizer that decides what is read; empty where that is not known: a
        class that is not of transformers has code of its own, and a template may write the day.
        """
        own, kind = self.tokenizer, type(self.tokenizer)
        foreign = kind.__module__.partition(".")[0] != "transformers"
        if self._pieces is None or foreign or "strftime_now" in self.template:
            return ""
        named = (sorted(own.special_tokens_map.items()), kind.__qualname__, self.template)
        whole = self._pieces.backend.to_str() + repr(named)
        return hashlib.sha256(whole.encode()).hexdigest()

    @cached_property
    def _content(self) -> Any:
        """What keeps the ids of content; None where every special token is a control token."""
        kept = text_filter(self.tokenizer, self.control)
        added = self.tokenizer.added_tokens_decoder.items()
        return kept if kept([i for i, token in added if token.special]) else None

    @cached_property
    def _lacking(self) -> Mapping[str, int]:
        """The tokens that the model has no row for, longest first, with their ids."""
        if self.embedding is None or len(self.tokenizer) <= self.embedding.rows:
            return {}
        every = self.tokenizer.get_vocab().items()
        beyond = [(token, i) for token, i in every if i >= self.embedding.rows]
        return dict(sorted(beyond, key=lambda one: -len(one[0])))

    @cached_property
    def _spelt(self) -> re.Pattern[str] | None:
        return re.compile("|".join(map(re.escape, self._lacking))) if self._lacking else None

    @cached_property
    def is_blank(self) -> Callable[[int], bool]:
        """Whether an id is white space; every answer's last ids are asked about."""
        return cache(lambda id_: not str(self.tokenizer.decode([id_])).strip())

    def protected(self, text: str, place: str) -> str:
        """The text with its control tokens marked as letters.

        Raises DataError for a token that the model has no row for, unless `split` says that these
        are letters: whoever wrote it meant the token.
        """
        if self.rules.special == "parse":
            return text
        if self._spelt and self.rules.special is None and (found := self._spelt.search(text)):
            raise self._no_row(place, "spells", found[0], self._lacking[found[0]])
        if not text.isascii() and RESERVED.search(text):
            raise DataError(f"{place}: a text holds a character for private use, U+0FFExx")
        return self.control.marked(text) if self.control.first(text) else text

    def protected_message(self, message: Message, place: str) -> Message:
        """The same for every text of a message."""
        content = message["content"]
        if len(message) > 2 or content is None:
            return {name: self.protected_in(part, place) for name, part in message.items()}
        marked = self.protected(content, place)
        return message if marked is content else {**message, "content": marked}

    def protected_in(self, value: Any, place: str) -> Any:
        """The same for every text in a part of a message, or in a list of tools."""
        if isinstance(value, str):
            return self.protected(value, place)
        if isinstance(value, Mapping):
            return {name: self.protected_in(part, place) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.protected_in(part, place) for part in value]
        return value

    def protected_prompt(self, prompt: str, place: str) -> str:
        """A plain prompt with its control tokens marked; one that spells a turn is refused."""
        control = self.control
        if self.rules.special is None and (turn := control.first(prompt, control.turns)):
            raise DataError(
                f"{place}: the prompt is plain text that holds {turn}, with which the chat "
                "template marks turns; give it as messages, or say data.special: parse if it is "
                "a rendered chat, or data.special: split if these are letters"
            )
        if control.bos and prompt.startswith(control.bos):
            return control.bos + self.protected(prompt.removeprefix(control.bos), place)
        return self.protected(prompt, place)

    def protected_answer(self, answer: str, place: str) -> str:
        """A plain answer with its control tokens marked; one at its very end is its end."""
        bare, end = answer.rstrip(), str(self.tokenizer.eos_token)
        if not bare.endswith(end):
            return self.protected(answer, place)
        at = len(bare) - len(end)
        return self.protected(answer[:at], place) + answer[at:]

    def ids(self, text: str, place: str, *, alone: bool) -> tuple[int, ...]:
        """The ids of a text, marked or not; `alone`: with the BOS that the tokenizer adds."""
        if self._is_read_as_it_stands(text):
            if self._pieces:
                return self.with_rows(self._pieces.ids(text, alone=alone), place)
            made = self.tokenizer(text, add_special_tokens=alone, verbose=False)
            return self.with_rows(tuple(made["input_ids"]), place)
        ids = self._letters.encode(text, alone=alone) if self._letters else None
        if ids is None:
            token = self.control.first(self.control.unmarked(text))
            raise DataError(
                f"{place}: a text holds {token}, which this tokenizer can read as a control token "
                "only; take it out, or say data.special: parse to let it stand for that token"
            )
        return self.with_rows(ids, place)

    def prepare(self, texts: Iterable[Text]) -> None:
        """Read several texts at a time, so that `ids` of each costs little; errors wait for it."""
        plain = [(text, alone) for text, alone in texts if self._is_read_as_it_stands(text)]
        if self._pieces and plain:
            with suppress(Exception):
                self._pieces.prepare(plain)

    def _is_read_as_it_stands(self, text: str) -> bool:
        return self.rules.special == "parse" or text.isascii() or not RESERVED.search(text)

    def with_rows(self, ids: tuple[int, ...], place: str) -> tuple[int, ...]:
        """The ids, if the model has a row for each."""
        largest = max(ids, default=0) if self._lacking else 0
        if self.embedding and largest >= self.embedding.rows:
            token = str(self.tokenizer.convert_ids_to_tokens(largest))
            raise self._no_row(place, "holds", token, largest)
        return ids

    def _no_row(self, place: str, how: str, token: str, number: int) -> DataError:
        told = self.embedding.lacks(token, number) if self.embedding else ""
        return DataError(f"{place}: {how} {told}")

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of ids with the special tokens that are content, without the others."""
        if self._content is None:
            return self.plain(ids)
        return str(self.tokenizer.decode(self._content(ids), clean_up_tokenization_spaces=False))

    def continuation(
        self, prompt: Sequence[int], body: Sequence[int], *, special: bool = True
    ) -> str:
        """The text with which a body goes on from its prompt, leading space included; `special`:
        with the special tokens that are content.
        """
        if not special:
            before, whole = self.plain(prompt), self.plain([*prompt, *body])
        else:
            before, whole = self.decoded(prompt), self.decoded([*prompt, *body])
        return whole[shared_length(before, whole) :]

    def plain(self, ids: Sequence[int]) -> str:
        """The text of ids without special tokens."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def reader_of(tokenizer: Tokenizer | Reader) -> Reader:
    """A reader as it is; a tokenizer with the usual rules."""
    return tokenizer if isinstance(tokenizer, Reader) else Reader(tokenizer)
