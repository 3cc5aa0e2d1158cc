"""How one token is drawn: noise from a key, inverse CDF, and the hooks of `generate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    StoppingCriteria,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from alignzoo.contract.rollout import Sampling

WORTH_DROPPING = 0.25  # share of finished rows that pays for one more call of `generate`


def uniform(keys: Sequence[int], n: int, device: torch.device) -> Tensor:
    """[B, n] uniform numbers in [0, 1); number t of a row depends on its key and t alone.

    The SplitMix64 generator (Steele, Lea, Flood 2014) started at each 64-bit key.
    """
    state = np.array([key % 2**64 for key in keys], dtype=np.uint64)[:, None]
    step = np.arange(1, n + 1, dtype=np.uint64)
    z = state + step * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return torch.from_numpy(z.astype(np.float64) * 2.0**-53).to(device, _wide(device))


def draw(logits: Tensor, u: Tensor) -> Tensor:
    """[B] tokens of softmax(logits [B, V]) by inverse CDF: the first i with CDF_i > u * CDF_V."""
    cdf = logits.softmax(-1).cumsum(-1, dtype=_wide(logits.device))  # [B, V]
    total = cdf[:, -1:].contiguous()
    token = torch.searchsorted(cdf, u[:, None] * total, right=True)
    last = torch.searchsorted(cdf, total)  # the last token with a probability, if u rounds to 1
    return torch.minimum(token, last).clamp(max=logits.shape[-1] - 1)[:, 0]


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64


class TokenPicker(LogitsProcessor):
    """Draws each row's next token with its own noise and leaves greedy search no other choice.

    Temperature, then top-k, then top-p; no stop token before
    `min_new_tokens` others, as in transformers. Notes log softmax(logits)[token], of the raw
    logits, in `log_probs`.
    """

    def __init__(self, sampling: Sampling, noise: Tensor, prompt_width: int) -> None:
        self.sampling = sampling
        self.noise = noise  # [B, max_new_tokens]
        self.prompt_width = prompt_width
        self.stops = torch.tensor(sampling.stop_ids, dtype=torch.int64, device=noise.device)
        self.filters = _filters(sampling)
        self.log_probs: list[Tensor] = []  # one [B] float32 per step

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V] whose maximum is the drawn token."""
        step = input_ids.shape[1] - self.prompt_width
        token = self._pick(input_ids, scores, step)[:, None]  # [B, 1]
        picked = scores.gather(1, token) - scores.logsumexp(-1, keepdim=True)
        self.log_probs.append(picked[:, 0])
        return scores.scatter(1, token, torch.inf)

    def _pick(self, input_ids: Tensor, scores: Tensor, step: int) -> Tensor:
        if step < self.sampling.min_new_tokens:
            scores = scores.index_fill(1, self.stops, -torch.inf)
        if self.sampling.temperature == 0:
            return scores.argmax(-1)
        scores = scores / self.sampling.temperature
        for keep_top in self.filters:
            scores = keep_top(input_ids, scores)
        return draw(scores, self.noise[:, step])


def _filters(sampling: Sampling) -> list[Callable[[Tensor, Tensor], Tensor]]:
    top_k = [TopKLogitsWarper(sampling.top_k)] if sampling.top_k > 0 else []
    top_p = [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    return [*top_k, *top_p]


class EnoughFinished(StoppingCriteria):
    """Stops a segment once a share of its rows has a stop token, so that they can be dropped."""

    def __init__(self, stop_ids: Sequence[int], start: int, share: float) -> None:
        self.stop_ids = torch.tensor(stop_ids, dtype=torch.int64)
        self.share = share
        self.start = start  # column of the segment's first new token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[B] bool, equal for all rows."""
        new = input_ids[:, self.start :]
        finished = torch.isin(new, self.stop_ids.to(new.device)).any(1)
        return (finished.float().mean() >= self.share).expand(len(new))
