"""What the built-in rollout engine holds: the cache, and the last column of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from alignzoo.contract.rollout import Sampling
from alignzoo.engine.memory.live import Live
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.sampling.picker import TokenPicker
from alignzoo.engine.sampling.ways import cache_word, sampling_mode

SAMPLING, CACHE = "sampling", "KV cache"


@dataclass(frozen=True)
class Decoding:
    """Rows that are sampled side by side."""

    rows: int
    prompt: int  # tokens of each
    sampling: Sampling


@torch.no_grad()
def sample(model: PreTrainedModel, decoding: Decoding, ranks: Ranks, live: Live) -> None:
    """The pass over the prompts, and the step to the last token, when the cache is longest.

    What lies between only grows. The rows are all alive to the end, as the worst ones are.
    """
    ids = torch.zeros(decoding.rows, decoding.prompt, dtype=torch.int64)
    longest = decoding.prompt + decoding.sampling.max_new_tokens - 1
    with live.during(SAMPLING), ranks.autocast(), sampling_mode(model):
        cache = Noted(live, model.config)
        _step(model, ids, cache, decoding)
        for layer in cache.layers:
            _grow(layer, longest - 1, live)
        _step(model, ids.new_zeros(decoding.rows, longest), cache, decoding)


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
