"""Keys and values of a plain attention layer, with room for the tokens that are to come."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer
from transformers.generation.utils import GenerateDecoderOnlyOutput

ROOM = 64  # tokens that fit before keys and values are moved to a larger place


class RoomyLayer(DynamicLayer):
    """Writes a step's keys and values behind the others, where the library copies all of them.

    `keys` and `values` [B, h, n, d] are the filled part of tensors of n columns and more, so
    whatever the library asks of such a layer holds.
    """

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places: list[Tensor] = []  # of keys and values, [B, h, n + room, d]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values so far; those of the prompts stay where they are."""
        if not self.is_initialized:
            self.keys, self.values, self.is_initialized = key_states, value_states, True
            return key_states, value_states
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        if not self.places or end > self.places[0].shape[2]:
            self.take(torch.arange(len(self.keys), device=self.keys.device), max(end - start, ROOM))
        keys, values = self.places
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def take(self, rows: Tensor, room: int = ROOM) -> None:
        """Only the rows [k], in their order, with room for so many tokens."""
        self.places = []  # so that what has moved is freed at once
        keys = _moved(self.keys, rows, room)
        self.keys = keys[:, :, : self.keys.shape[2]]
        values = _moved(self.values, rows, room)
        self.values = values[:, :, : self.values.shape[2]]
        self.places = [keys, values]


def _moved(held: Tensor, rows: Tensor, room: int) -> Tensor:
    """[k, h, n + room, d] with the rows of what is held [B, h, n, d] in front."""
    _, h, n, d = held.shape
    place = held.new_empty(len(rows), h, n + room, d)
    torch.index_select(held, 0, rows, out=place[:, :, :n])
    return place


class RoomyCache(DynamicCache):
    """Of a model whose layers are all plain."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        self.roomy = [RoomyLayer() for _ in self.layers]
        self.layers = list(self.roomy)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values so far of a layer."""
        return self.roomy[layer_idx].update(key_states, value_states)

    def take(self, rows: Tensor) -> None:
        """Only the rows [k], in their order."""
        for layer in self.roomy:
            layer.take(rows)


def cache_word() -> str:
    """What the installed transformers calls a cache; its older name makes it warn."""
    names = {field.name for field in fields(GenerateDecoderOnlyOutput)}
    return "cache" if "cache" in names else "past_key_values"


def other_layers(config: PreTrainedConfig) -> str:
    """The kinds of layer beside plain attention in the library's cache for a model; '' if none."""
    kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    return ", ".join(sorted(kind.__name__ for kind in kinds - {DynamicLayer}))
