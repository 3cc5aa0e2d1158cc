"""Whether a tokenizer and a model belong together: every id that is read must have a row."""

from __future__ import annotations

from typing import cast

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.contract.errors import AlignzooError

SHOWN = 3  # tokens that a note lists


def embedding_rows(model: PreTrainedModel) -> int:
    """How many ids the model can read."""
    return len(cast(Tensor, model.get_input_embeddings().weight))


def embedding_width(model: PreTrainedModel) -> int:
    """H: numbers of an id's row."""
    return cast(Tensor, model.get_input_embeddings().weight).shape[-1]


def check_end(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises AlignzooError when the id that ends answers, which also pads, has no row."""
    rows, end = embedding_rows(model), tokenizer.eos_token_id
    if isinstance(end, int) and end >= rows:
        raise AlignzooError(
            f"{name}: the embedding has {rows} rows, and the tokenizer, which knows "
            f"{len(tokenizer)} tokens, ends answers with {tokenizer.eos_token!r}, id {end}; resize "
            "the embedding or take the tokenizer that belongs to the model"
        )


def without_a_row(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[tuple[int, str]]:
    """(id, token) of every token that the embedding has no row for."""
    rows = embedding_rows(model)
    return sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= rows)


def outside(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """A note about tokens without a row, or an empty string.

    They do no harm until a row holds one: padding is never read, so any id pads.
    """
    rows = embedding_rows(model)
    tokens = without_a_row(model, tokenizer)
    if not tokens:
        return ""
    shown = ", ".join(f"{token!r} ({i})" for i, token in tokens[:SHOWN])
    return (
        f"{name}: the tokenizer knows {len(tokenizer)} tokens, the embedding has {rows} rows; "
        f"without a row: {shown}{', ...' if len(tokens) > SHOWN else ''}; a row of the data that "
        "holds one is refused"
    )
