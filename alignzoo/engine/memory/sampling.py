"""What the built-in rollout engine holds: the cache, and the last column of logits."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from alignzoo.contract.rollout import Sampling
from alignzoo.engine.memory.live import Live
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.sampling.cache import ROOM, RoomyLayer, cache_word, other_layers
from alignzoo.engine.sampling.decoder import ModelDecoder
from alignzoo.engine.sampling.mixtures import MixedDecoder, Mixture
from alignzoo.engine.sampling.picker import Picker, TokenPicker
from alignzoo.engine.sampling.rounded import rounded
from alignzoo.engine.sampling.ways import sampling_mode

SAMPLING, CACHE = "sampling", "KV cache"


@dataclass(frozen=True)
class Decoding:
    """Rows that are sampled side by side."""

    rows: int
    prompt: int  # tokens of each
    sampling: Sampling

    @property
    def longest(self) -> int:
        """Tokens in the cache after the last step."""
        return self.prompt + self.sampling.max_new_tokens - 1


@torch.no_grad()
def sample(
    models: Mapping[str, PreTrainedModel], decoding: Decoding, ranks: Ranks, live: Live
) -> None:
    """The pass over the prompts, and the steps when the cache is longest.

    What lies between only grows. The rows are all alive to the end, and no two prompts are the
    same, as the worst ones are. Several models are mixed.
    """
    with ExitStack() as around:
        around.enter_context(live.during(SAMPLING))
        around.enter_context(ranks.autocast())
        for model in models.values():
            around.enter_context(sampling_mode(model))
        if any(other_layers(model.config) for model in models.values()):
            _generated(next(iter(models.values())), decoding, live)
        else:
            for model in models.values():
                around.enter_context(rounded(model))
            _stepped(models, decoding, live)


class NotedLayer(RoomyLayer):
    """Keys and values that are counted as such from the moment that they have their place."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self.live = live

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values so far."""
        held = super().update(*args, **kwargs)
        self.live.mark(held, CACHE)
        return held

    def take(self, rows: Tensor, room: int = ROOM) -> None:
        """Move them to a place with room."""
        super().take(rows, room)
        self.live.mark(self.places, CACHE)

    def fill(self, width: int) -> None:
        """As after so many tokens, which have room where they are, or filled the last place."""
        if width > self.places[0].shape[2]:
            shapes = [(*x.shape[:2], width, x.shape[3]) for x in (self.keys, self.values)]
            self.places = [self.keys.new_empty(shape) for shape in shapes]
            self.live.mark(self.places, CACHE)
        self.keys, self.values = (place[:, :, :width] for place in self.places)


def _stepped(models: Mapping[str, PreTrainedModel], decoding: Decoding, live: Live) -> None:
    """The prompts, the last move to a larger place if there is one, and the last step."""
    own = {role: ModelDecoder(model) for role, model in models.items()}
    layers: list[NotedLayer] = []
    for one in own.values():
        noted = [NotedLayer(live) for _ in one.cache.layers]
        one.cache.roomy, one.cache.layers = list(noted), list(noted)
        layers += noted
    mixed = MixedDecoder(Mixture(dict.fromkeys(own, 1 / len(own))), own)
    picker = Picker.of(decoding.sampling, torch.device("cpu"))
    noise = torch.zeros(decoding.rows, dtype=torch.float64)
    tokens = torch.zeros(decoding.rows, dtype=torch.int64)
    vocabulary = min(len(one.head.weight) for one in own.values())
    picker(mixed.begin(_prompts(decoding, vocabulary)), noise, 0)
    moved = decoding.prompt + (decoding.longest - 1 - decoding.prompt) // ROOM * ROOM
    for width in (moved, decoding.longest - 1):
        if width >= decoding.prompt:
            for layer in layers:
                layer.fill(width)
            for one in own.values():
                one.width = width
            picker(mixed.next(tokens), noise, decoding.sampling.max_new_tokens - 1)


def _prompts(decoding: Decoding, vocabulary: int) -> list[list[int]]:
    """As many different ones as there may be."""
    several = [[n // vocabulary % vocabulary, n % vocabulary] for n in range(decoding.rows)]
    return [[0] * max(0, decoding.prompt - 2) + ids[-decoding.prompt :] for ids in several]


def _generated(model: PreTrainedModel, decoding: Decoding, live: Live) -> None:
    ids = torch.zeros(decoding.rows, decoding.prompt, dtype=torch.int64)
    cache = Noted(live, model.config)
    _step(model, ids, cache, decoding)
    for layer in cache.layers:
        _grow(layer, decoding.longest - 1, live)
    _step(model, ids.new_zeros(decoding.rows, decoding.longest), cache, decoding)


class Noted(DynamicCache):
    """A cache whose tensors are counted as such from the moment that they are in it."""

    def __init__(self, live: Live, config: Any) -> None:
        super().__init__(config=config)
        self.live = live

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Keys and values of a layer so far."""
        held = super().update(*args, **kwargs)
        self.live.mark(held, CACHE)
        return held


def _step(model: PreTrainedModel, ids: Tensor, cache: Noted, decoding: Decoding) -> None:
    """One forward as `generate` makes it, and one token drawn."""
    out = cast(Any, model)(
        input_ids=ids if not cache.get_seq_length() else ids[:, -1:],
        attention_mask=torch.ones_like(ids),
        use_cache=True,
        logits_to_keep=1,
        **{cache_word(): cache},
    )
    noise = torch.zeros(decoding.rows, 1, dtype=torch.float64)
    scores = out.logits[:, -1].to(torch.float32, copy=True)
    TokenPicker(decoding.sampling, noise, ids.shape[1])(ids, scores)


def _grow(layer: Any, length: int, live: Live) -> None:
    """A layer's cache after so many tokens; what has no keys does not grow."""
    keys = getattr(layer, "keys", None)
    if keys is None:
        return
    new, window = length - layer.get_seq_length(), getattr(layer, "sliding_window", None)
    kept = new if window is None else min(new, max(0, window - keys.shape[2]))
    more = [x.new_empty((*x.shape[:2], kept, x.shape[3])) for x in (keys, layer.values)]
    layer.update(*more)
    if window is not None:
        layer.cumulative_length += new - kept
    live.mark((layer.keys, layer.values), CACHE)
