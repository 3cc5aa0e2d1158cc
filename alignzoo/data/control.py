"""Control tokens: which tokens begin, end and pad turns, and texts that spell them.

What stands in a text is text: a `</s>` inside an answer is letters, not the end of it. Other
added tokens, such as <think> or the marks of tool calls, are content and keep their ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerBase as Tokenizer

PROBE = ("Question1", "Reply2", "Question3")  # turns of a chat that shows what a template writes
# Characters for private use: a control token that a text spells, and one that a template wrote.
SPELT, WRITTEN = 0xFFE00, 0x10FE00
MOST = 0x100
RESERVED = re.compile(f"[{chr(SPELT)}-{chr(SPELT + MOST)}{chr(WRITTEN)}-{chr(WRITTEN + MOST)}]")
NO_TEXT = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token")


@dataclass(frozen=True)
class Control:
    """The control tokens of a tokenizer, as they are spelt."""

    bos: str
    tokens: tuple[str, ...]  # BOS, EOS, padding and turns, longest first
    turns: tuple[str, ...]  # those that a chat template writes between turns

    def first(self, text: str, among: Sequence[str] | None = None) -> str | None:
        """A control token that the text spells, if any."""
        for token in self.tokens if among is None else among:
            if token in text:
                return token
        return None

    def marked(self, text: str) -> str:
        """The text with one private character for every control token that it spells."""
        pattern = "|".join(map(re.escape, self.tokens))
        return re.sub(pattern, lambda found: chr(SPELT + self.tokens.index(found[0])), text)

    def unmarked(self, text: str) -> str:
        """The text that was marked, with its letters."""
        return _replaced(text, {chr(SPELT + n): token for n, token in enumerate(self.tokens)})


@dataclass(frozen=True)
class Letters:
    """A copy of a tokenizer that reads control tokens as letters, unless a template wrote them."""

    control: Control
    backend: Any  # tokenizers.Tokenizer
    ids: Mapping[int, int]  # of a private character -> of the token it stands for
    forbidden: frozenset[int]  # ids that letters must not give

    def encode(self, marked: str, *, alone: bool) -> tuple[int, ...] | None:
        """The ids of a marked text, with the tokenizer's own BOS if it stands `alone`.

        None: the vocabulary reads the letters of a control token as that token.
        """
        written = {token: chr(WRITTEN + n) for n, token in enumerate(self.control.tokens)}
        text = self.control.unmarked(_replaced(marked, written))
        made = self.backend.encode(text, add_special_tokens=alone)
        inside = zip(made.ids, made.special_tokens_mask, strict=True)
        if any(i in self.forbidden and not added for i, added in inside):
            return None
        return tuple(self.ids.get(i, i) for i in made.ids)


def control_of(tokenizer: Tokenizer) -> Control:
    """The control tokens of a tokenizer and of its chat template."""
    named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    turns = _turns(tokenizer)
    found = {t for t in (*filter(None, map(_text, named)), *turns) if is_markup(t)}
    bos = _text(tokenizer.bos_token)
    longest_first = sorted(found, key=lambda token: (-len(token), token))[:MOST]
    return Control(bos, tuple(longest_first), tuple(t for t in longest_first if t in turns))


def letters_of(tokenizer: Tokenizer, control: Control) -> Letters | None:
    """A copy of the tokenizer for letters; None where the tokenizer cannot be copied so."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    added = {t.content: (i, t) for i, t in tokenizer.added_tokens_decoder.items()}
    state = json.loads(backend.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] in control.tokens
    copy = type(backend).from_str(json.dumps(state))
    copy.encode_special_tokens = True  # special tokens in a text are letters
    copy.no_padding()
    copy.no_truncation()
    known = {n: added[token] for n, token in enumerate(control.tokens) if token in added}
    copy.add_tokens([_stand_in(chr(WRITTEN + n), token) for n, (_, token) in known.items()])
    ids = {copy.token_to_id(chr(WRITTEN + n)): i for n, (i, _) in known.items()}
    made = Letters(control, copy, ids, frozenset(ids.values()))
    return made if _agrees(made, tokenizer) else None


def text_filter(tokenizer: Tokenizer, control: Control) -> Callable[[Sequence[int]], list[int]]:
    """What drops the tokens that are no content: control tokens, and those for unknown words."""
    named = {_text(getattr(tokenizer, name, None)) for name in NO_TEXT}
    names = {*named, *control.tokens, *control.turns} - {""}
    dropped = {tokenizer.convert_tokens_to_ids(name) for name in names}
    return lambda ids: [i for i in ids if i not in dropped]


def _text(token: Any) -> str:
    return "" if token is None else str(token)


def is_markup(token: str) -> bool:
    """Whether a token is spelt like a mark, not like a word or white space that texts need."""
    return len(token) > 1 and not token.isalnum() and not token.isspace()


def _turns(tokenizer: Tokenizer) -> frozenset[str]:
    """The added tokens that the chat template writes around turns, BOS apart.

    An added token counts if it is special, or stands in every gap between two turns. An empty
    <think></think> before a reply is no turn.
    """
    text = _probed(tokenizer)
    found = re.split("|".join(PROBE), text)
    gaps = found[1:3] if len(found) == len(PROBE) + 1 else ["", ""]
    added = {t.content: t.special for t in tokenizer.added_tokens_decoder.values()}
    empty = {t for t in added if t in gaps[0] and _partner(t) in added and _partner(t) in gaps[0]}
    return frozenset(
        token
        for token, special in added.items()
        if is_markup(token)
        and token != tokenizer.bos_token
        and ((special and token in text and token not in empty) or all(token in g for g in gaps))
    )


def _partner(token: str) -> str:
    """</x> of <x> and the reverse; of another token nothing."""
    if token.startswith("</"):
        return f"<{token[2:]}"
    return f"</{token[1:]}" if token.startswith("<") else "\0"


def _probed(tokenizer: Tokenizer) -> str:
    """A short chat as the template writes it; empty without a template that can."""
    roles = ("user", "assistant", "user")
    chat = [{"role": r, "content": c} for r, c in zip(roles, PROBE, strict=True)]
    for messages in (chat, chat[:1]):
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False))
        except (TemplateError, ValueError, TypeError):
            continue
    return ""


def _stand_in(character: str, token: AddedToken) -> AddedToken:
    """An added token that behaves like another one, under another spelling."""
    from tokenizers import AddedToken

    return AddedToken(
        character,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word,
        normalized=token.normalized,
        special=False,
    )


def _agrees(letters: Letters, tokenizer: Tokenizer) -> bool:
    """Whether the copy reads what a template wrote as the tokenizer does."""
    text = f"One {' two '.join(letters.control.tokens)} three.\nFour{letters.control.bos}"
    return all(
        letters.encode(text, alone=alone)
        == tuple(tokenizer(text, add_special_tokens=alone, verbose=False)["input_ids"])
        for alone in (True, False)
    )


def _replaced(text: str, by: Mapping[str, str]) -> str:
    pattern = "|".join(map(re.escape, by))
    return re.sub(pattern, lambda found: by[found[0]], text) if pattern else text
