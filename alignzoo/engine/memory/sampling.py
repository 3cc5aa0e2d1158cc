"""What the built-in rollout engine holds: the cache, and the last column of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.contract.rollout import Sampling
from alignzoo.engine.memory.live import Live
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.sampling.picker import TokenPicker
from alignzoo.engine.sampling.ways import cache_of, cache_word, sampling_mode

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
        cache = _step(model, ids, None, decoding, live)
        for layer in cache.layers:
            layer.keys, layer.values = (_longer(x, longest - 1) for x in (layer.keys, layer.values))
            live.mark([layer.keys, layer.values], CACHE)
        _step(model, ids.new_zeros(decoding.rows, longest), cache, decoding, live)


def _step(model: PreTrainedModel, ids: Tensor, cache: Any, decoding: Decoding, live: Live) -> Any:
    """One forward as `generate` makes it, and one token drawn; the cache."""
    out = cast(Any, model)(
        input_ids=ids if cache is None else ids[:, -1:],
        attention_mask=torch.ones_like(ids),
        use_cache=True,
        logits_to_keep=1,
        **{cache_word(): cache},
    )
    for layer in cache_of(out).layers:
        live.mark([layer.keys, layer.values], CACHE)
    noise = torch.zeros(decoding.rows, 1, dtype=torch.float64)
    scores = out.logits[:, -1].to(torch.float32, copy=True)
    TokenPicker(decoding.sampling, noise, ids.shape[1])(ids, scores)
    return cache_of(out)


def _longer(x: Tensor, length: int) -> Tensor:
    """A cache [B, heads, length, d] of the same kind."""
    return x.new_empty((*x.shape[:2], length, x.shape[3]))
