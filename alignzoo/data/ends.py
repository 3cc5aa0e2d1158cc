"""Where an answer ends. One decision for training rows, rollouts, benchmarks and saved models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from alignzoo.contract.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

PROBE = "0123456789"  # an answer that no template trims, cuts or reads as something else


def end_ids(tokenizer: Tokenizer, named: Sequence[int | None] = ()) -> tuple[int, ...]:
    """Every id that ends an answer, each once.

    The tokenizer's end-of-sequence, those that the model's generation config names (`named`), and
    the token with which the chat template closes an assistant's turn.
    """
    eos, turn = tokenizer.eos_token_id, turn_end(tokenizer)
    known = (eos, *named, turn)
    return tuple(dict.fromkeys(id_ for id_ in known if isinstance(id_, int)))


def turn_end(tokenizer: Tokenizer) -> int | None:
    """The special token that a chat template writes right behind an answer, if it is one.

    Found by rendering: white space between the answer and the token does not count.
    """
    if tokenizer.chat_template is None:
        return None
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except (TemplateError, ValueError, TypeError):
        return None  # rows of this template are refused with their place
    before, found, after = text.rpartition(PROBE)
    tail = after.lstrip() if found and before else ""
    names = [name for name in _special(tokenizer) if tail.startswith(name)]
    return _special(tokenizer)[max(names, key=len)] if names else None


def _special(tokenizer: Tokenizer) -> dict[str, int]:
    """Special tokens by name, those outside the named roles (bos, eos, ...) too."""
    named = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    added = tokenizer.added_tokens_decoder.items()
    return {**dict(named), **{str(token): id_ for id_, token in added if token.special}}


def stop_ids(tokenizer: Tokenizer, stop: Sequence[str], ends: Sequence[int]) -> tuple[int, ...]:
    """The ids that end a sampled answer: the tokens of these names, by default the model's own.

    Raises DataError when a name is not one token.
    """
    if not stop:
        return tuple(ends)
    return tuple(dict.fromkeys(_stop_id(tokenizer, name) for name in stop))


def _stop_id(tokenizer: Tokenizer, name: str) -> int:
    number = tokenizer.convert_tokens_to_ids(name)
    if isinstance(number, int) and tokenizer.convert_ids_to_tokens(number) == name:
        return number
    parts = ", ".join(repr(part) for part in tokenizer.tokenize(name))
    raise DataError(
        f"sampling.stop: {name!r} is not one token of the tokenizer, which writes it as "
        f"{parts or 'nothing'}; name a single token"
    )


def end_token(tokenizer: Tokenizer, place: str) -> int:
    """The id that ends an answer which nothing has ended yet; DataError if there is none."""
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise DataError(f"{place}: the tokenizer has no end-of-sequence token to end answers with")
    return end
