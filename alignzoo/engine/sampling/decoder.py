"""A model that reads the rows of a batch side by side, each token once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from alignzoo.engine.models.heads import body_of, head_of
from alignzoo.engine.sampling import picker as drawing
from alignzoo.engine.sampling.cache import ROOM, RoomyCache, cache_word
from alignzoo.engine.sampling.rows import left_pad

ADDITIVE = ("eager", "sdpa")  # attention that takes a mask of numbers as it is


class Reader(Protocol):
    """What gives logits step by step."""

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read the prompts: logits [B, V] float32 of the first tokens."""
        ...

    def take(self, rows: Tensor) -> None:
        """Go on with only the rows [k] of the batch."""
        ...

    def next(self, tokens: Tensor) -> Tensor:
        """Read one more token [L] of every row: logits [L, V] of the next."""
        ...


class Decoder(Reader, Protocol):
    """What tokens are drawn from."""

    def pays(self, done: int, rows: int) -> bool:
        """Whether so many finished ones of the rows are worth a `take` of the others."""
        ...

    @property
    def room(self) -> int | None:
        """Steps after a `take` that may be replayed; then all rows are taken. None: all are run."""
        ...


class ModelDecoder:
    """One model, its cache, and which columns of each row are padding.

    Equal prompts are read once, as those of a group are; the head sees last positions only.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.body: nn.Module = body_of(model)
        self.read = _bare(self.body)
        self.head = head_of(model).widened()
        self.dtype, self.device = model.dtype, model.device
        config = model.config.get_text_config(decoder=True)
        self.additive = config._attn_implementation in ADDITIVE
        self.cache = RoomyCache(model.config)
        self.known = {cache_word(): self.cache, "use_cache": True}
        self.padding = torch.zeros(0, dtype=torch.int64)  # [L] columns before each row's prompt
        self.padded = False
        self.mask: Tensor | None = None  # [L, 1, 1, n and more] or [L, n and more]
        self.width = 0  # columns in the cache

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, V] behind the prompts."""
        different = {p: n for n, p in enumerate(dict.fromkeys(map(tuple, prompts)))}
        rows = torch.tensor([different[tuple(p)] for p in prompts], device=self.device)
        ids, attention = left_pad(list(different), self.device)
        self.width = ids.shape[1]
        self.padding = self.width - attention.sum(1)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        self.padded = bool(self.padding.any())
        logits = self._read(ids, positions, attention if self.padded else None)
        self.take(rows)
        return logits[rows]

    def take(self, rows: Tensor) -> None:
        """Only these rows of cache and padding."""
        self.cache.take(rows)
        self.padding, self.mask = self.padding[rows], None
        self.padded = bool(self.padding.any())

    def next(self, tokens: Tensor) -> Tensor:
        """Logits [L, V] behind the tokens [L]."""
        self.width += 1
        positions = self.width - 1 - self.padding[:, None]
        return self._read(tokens[:, None], positions, self._seen())

    def pays(self, done: int, rows: int) -> bool:
        """Whether so many finished ones of the rows are worth moving the others."""
        return done >= drawing.WORTH_DROPPING * rows

    @property
    def room(self) -> int | None:
        """Its steps are run, as each has shapes of its own."""
        return None

    def _read(self, ids: Tensor, positions: Tensor, seen: Tensor | None) -> Tensor:
        out = self.read(
            input_ids=ids,
            attention_mask=seen,
            position_ids=positions,
            **self.known,
        )
        return self.head(out.last_hidden_state[:, -1])

    def _seen(self) -> Tensor | None:
        """The mask of all columns so far; None where no row is padded.

        Numbers that are made once and added as they are spare the library to make and convert
        one in every step and layer.
        """
        if not self.padded:
            return None
        if self.mask is None or self.mask.shape[-1] < self.width:
            self.mask = self._mask(self.width + ROOM)
        return self.mask[..., : self.width]

    def _mask(self, width: int) -> Tensor:
        columns = torch.arange(width, device=self.device)
        hidden = columns < self.padding[:, None]  # [L, width]
        if not self.additive:
            return (~hidden).long()
        numbers = torch.zeros(hidden.shape, dtype=self.dtype, device=self.device)
        return numbers.masked_fill(hidden, -torch.inf)[:, None, None]


def _bare(body: nn.Module) -> Callable[..., Any]:
    """A body's own forward, without what the library wraps around it to collect more outputs.

    What it returns is a plain namespace: the library's takes as long to make as a layer's norms.
    A module that somebody watches or has changed is called as it is.
    """
    if body._forward_hooks or body._forward_pre_hooks or "forward" in vars(body):
        return body
    own = inspect.unwrap(type(body).forward)
    outputs = {
        name: SimpleNamespace
        for name, kind in own.__globals__.items()
        if isinstance(kind, type) and issubclass(kind, ModelOutput)
    }
    plain = FunctionType(own.__code__, own.__globals__ | outputs, own.__name__, own.__defaults__)
    plain.__kwdefaults__ = own.__kwdefaults__
    return partial(plain, body)
