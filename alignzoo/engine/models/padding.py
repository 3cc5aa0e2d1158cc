"""A padding token under which plain transformers reads a scalar head where it was trained.

`...ForSequenceClassification` (transformers 5) reads the last token of a row that is not
`config.pad_token_id`. Rows end with the end-of-sequence token; where that pads too, the library
reads the token before it, which was never trained.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.engine.models.fit import embedding_rows

NEW = "<|pad|>"  # a token for padding alone


def padded_apart(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, named: Collection[int] = ()
) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer whose padding ends no row; the model's config is set to the same.

    The tokenizer's own padding if it is apart from the end; else a new token in a row of the
    embedding that no token uses; else the unknown token; else a new token in a row that the
    embedding gets, all zeros. Padding is on the right, where it changes no position. `named` are
    ends of answers that neither tokenizer nor config names, such as the template's.
    """
    apart = copy.deepcopy(tokenizer)
    apart.padding_side = "right"
    rows, padding, unknown = embedding_rows(model), tokenizer.pad_token_id, tokenizer.unk_token_id
    ends = _ends(model, tokenizer) | {*named}
    if not _fits(padding, ends, rows):
        if len(tokenizer) >= rows and _fits(unknown, ends, rows):
            apart.pad_token = tokenizer.unk_token
        else:
            apart.add_special_tokens({"pad_token": NEW})
            _grow(model, int(apart.pad_token_id) + 1)
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = apart.pad_token_id
    return apart


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int | None]:
    """Every id that may end a row: the tokenizer's, and those that the model's config lists."""
    own = getattr(model.config.get_text_config(), "eos_token_id", None)
    return {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}


def _fits(number: int | None, ends: set[int | None], rows: int) -> bool:
    return number is not None and number < rows and number not in ends


def _grow(model: PreTrainedModel, rows: int) -> None:
    """Give the embedding rows up to a number, if it has fewer."""
    before = embedding_rows(model)
    if rows > before:
        model.resize_token_embeddings(rows, mean_resizing=False)
        with torch.no_grad():
            cast(Tensor, model.get_input_embeddings().weight)[before:] = 0.0
