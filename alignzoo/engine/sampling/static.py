"""A decoder whose steps all have the same shapes and places, so that a GPU can replay them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from alignzoo.engine.sampling.cache import cache_word
from alignzoo.engine.sampling.decoder import ADDITIVE, ModelDecoder
from alignzoo.engine.sampling.replay import Replayed

WIDER = 256  # columns at least by which a full cache grows, because a step is recorded anew
ALIGNED = 8  # columns; fused attention wants masks whose rows begin at 16 bytes
FEW = 16  # rows that cost a step next to nothing on a GPU


class FixedLayer(DynamicLayer):
    """Keys and values [L, h, W, d] of W columns, of which a tensor says which is written."""

    keys: Tensor
    values: Tensor

    def __init__(self, column: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.column = column  # [1] int64
        self.fixed = False

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Those of the prompts as they are; later all columns, whether written or not."""
        if not self.fixed:
            self.keys, self.values, self.is_initialized = key_states, value_states, True
            return key_states, value_states
        self.keys.index_copy_(2, self.column, key_states.to(self.keys.dtype))
        self.values.index_copy_(2, self.column, value_states.to(self.values.dtype))
        return self.keys, self.values

    def take(self, rows: Tensor, held: int, width: int, dtype: torch.dtype | None) -> None:
        """Only the rows [k] of the columns held, in a new place."""
        self.keys = _placed(self.keys[:, :, :held], rows, width, dtype)
        self.values = _placed(self.values[:, :, :held], rows, width, dtype)
        self.fixed = True


def _placed(held: Tensor, rows: Tensor, width: int, dtype: torch.dtype | None) -> Tensor:
    """[k, h, width, d] with the rows of what is held in front, zeros behind."""
    _, h, n, d = held.shape
    place = held.new_zeros(len(rows), h, width, d, dtype=dtype)
    place[:, :, :n] = held.index_select(0, rows)
    return place


class FixedCache(DynamicCache):
    """Of a model whose layers are all plain."""

    def __init__(self, config: PreTrainedConfig, device: torch.device) -> None:
        super().__init__(config=config)
        self.column = torch.zeros(1, dtype=torch.int64, device=device)
        self.fixed = [FixedLayer(self.column) for _ in self.layers]
        self.layers = list(self.fixed)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All columns of a layer."""
        return self.fixed[layer_idx].update(key_states, value_states)


class StaticDecoder(ModelDecoder):
    """The steps of a `ModelDecoder` on W columns, of which a mask hides those to come.

    Logits hold until the next call. W grows with what is held, up to what `limit` new tokens
    need; then, and when rows leave, the step is recorded anew.
    """

    def __init__(self, model: PreTrainedModel, limit: int) -> None:
        super().__init__(model)
        self.limit = limit
        self.fixed = FixedCache(model.config, self.device)
        self.known[cache_word()] = self.fixed
        self.places = 0  # W
        self.longest = 0
        self.ids = self.positions = self.padding  # [L, 1]
        self.step: Replayed | None = None

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, V] behind the prompts."""
        self.longest = max(map(len, prompts)) + self.limit - 1
        return super().begin(prompts)

    def take(self, rows: Tensor) -> None:
        """Only these rows, in places that the next steps share."""
        self.step = None  # so that what it held is freed at once
        self.padding = self.padding[rows]
        self.padded = bool(self.padding.any())
        room = min(self.width + max(WIDER, self.width // 2), self.longest)
        self.places = -(-max(room, self.width + 1) // ALIGNED) * ALIGNED
        kind, dtype = self.device.type, None
        if torch.is_autocast_enabled(kind):  # as attention would round them at every step
            self.dtype = dtype = torch.get_autocast_dtype(kind)
        for layer in self.fixed.fixed:
            layer.take(rows, self.width, self.places, dtype)
        self.fixed.column.fill_(self.width)
        self.positions = self.width - self.padding[:, None]
        self.ids = torch.zeros_like(self.positions)
        self.mask = self._mask(self.places)
        self.mask[..., self.width :] = -torch.inf
        self.step = Replayed(self._advance, self.device)

    def next(self, tokens: Tensor) -> Tensor:
        """Logits [L, V] behind the tokens [L]."""
        if self.step is None or self.width == self.places:
            self.take(torch.arange(len(tokens), device=self.device))
            return self.next(tokens)
        self.ids.copy_(tokens[:, None])
        self.width += 1
        return self.step()

    def pays(self, done: int, rows: int) -> bool:
        """Whether so many finished rows of these are worth a step that is recorded anew."""
        return done * 2 >= rows > FEW

    @property
    def refused(self) -> str:
        """Why steps are launched one by one, in words that follow 'because'; or ''."""
        return self.step.refused if self.step else ""

    def _advance(self) -> Tensor:
        """What it changes before its end may be done twice."""
        assert self.mask is not None
        self.mask.index_fill_(-1, self.fixed.column, 0)
        logits = self._read(self.ids, self.positions, self.mask)
        self.positions.add_(1)
        self.fixed.column.add_(1)
        return logits


def why_not_fixed(model: PreTrainedModel) -> str:
    """What keeps a model that is stepped from a fixed width, in words that follow 'because'."""
    kind = model.config.get_text_config(decoder=True)._attn_implementation
    return "" if kind in ADDITIVE else f"its attention, {kind}, takes no mask of numbers"
