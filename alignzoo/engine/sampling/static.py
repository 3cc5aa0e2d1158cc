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
from alignzoo.engine.sampling.packed import packed
from alignzoo.engine.sampling.replay import Replayed, waits

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

    W grows whenever rows are taken: to what is held and half as much, or what `limit` new tokens
    need. Between two takes steps read and write the same places and count in them alone.
    """

    def __init__(self, model: PreTrainedModel, limit: int) -> None:
        super().__init__(model)
        self.limit = limit
        self.fixed = FixedCache(model.config, self.device)
        self.known[cache_word()] = self.fixed
        self.places = 0  # W
        self.longest = 0
        self.positions = self.padding  # [L, 1]
        self.hidden = self.padding  # the mask, [L, 1, 1, W]

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, V] behind the prompts."""
        self.longest = max(map(len, prompts)) + self.limit - 1
        return super().begin(prompts)

    def take(self, rows: Tensor) -> None:
        """Only these rows, in places that the next steps share."""
        if self.places:
            self.width = int(self.fixed.column)
        self.padding = self.padding[rows]
        room = min(self.width + max(WIDER, self.width // 2), self.longest)
        self.places = -(-max(room, self.width + 1) // ALIGNED) * ALIGNED
        kind, dtype = self.device.type, None
        if torch.is_autocast_enabled(kind):  # as attention would round them at every step
            self.dtype = dtype = torch.get_autocast_dtype(kind)
        for layer in self.fixed.fixed:
            layer.take(rows, self.width, self.places, dtype)
        self.fixed.column.fill_(self.width)
        self.positions = self.width - self.padding[:, None]
        self.hidden = self._mask(self.places)
        self.hidden[..., self.width :] = -torch.inf

    @property
    def room(self) -> int | None:
        """Steps from the last take on that have their place."""
        return self.places - self.width

    def next(self, tokens: Tensor) -> Tensor:
        """Logits [L, V] behind the tokens [L]; what it changes before its end may be done twice."""
        self.hidden.index_fill_(-1, self.fixed.column, 0)
        with packed():
            logits = self._read(tokens[:, None], self.positions, self.hidden)
        self.positions.add_(1)
        self.fixed.column.add_(1)
        return logits

    def pays(self, done: int, rows: int) -> bool:
        """Whether so many finished rows of these are worth a step that is recorded anew."""
        return done * 2 >= rows > FEW


class Replaying:
    """A decoder of fixed places whose steps are replayed, for a trial of it."""

    def __init__(self, decoder: StaticDecoder) -> None:
        self.decoder = decoder
        self.tokens = self.logits = torch.empty(0)
        self.step: Replayed | None = None
        self.waits: bool | None = None  # None: not known yet

    @property
    def refused(self) -> str:
        """Why steps were not replayed, in words that follow 'because'; or ''."""
        said = self.step.refused if self.step else ""
        return "its step waits for the device" if self.waits else said

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, V] behind the prompts."""
        return self._renewed(self.decoder.begin(prompts))

    def take(self, rows: Tensor) -> None:
        """Only these rows."""
        self.decoder.take(rows)
        self._renewed(self.logits[rows])

    def next(self, tokens: Tensor) -> Tensor:
        """Logits [L, V] behind the tokens [L]."""
        self.tokens.copy_(tokens)
        first = self.waits is None
        if first:
            self.waits = waits(self._advance)
        if self.waits:
            self._advance()  # again, if it was stopped
        elif self.step and not first:
            self.step(self._advance)
        return self.logits.clone()

    def _renewed(self, logits: Tensor) -> Tensor:
        self.tokens, self.logits = logits.argmax(-1), logits.clone()
        self.step = Replayed(self.decoder.device)
        return logits

    def _advance(self) -> None:
        self.logits.copy_(self.decoder.next(self.tokens))


def why_not_fixed(model: PreTrainedModel) -> str:
    """What keeps a model that is stepped from a fixed width, in words that follow 'because'."""
    kind = model.config.get_text_config(decoder=True)._attn_implementation
    return "" if kind in ADDITIVE else f"its attention, {kind}, takes no mask of numbers"
