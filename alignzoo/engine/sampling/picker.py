"""How one token is drawn: noise from a key, inverse CDF, and the hooks of `generate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    LogitsProcessor,
    StoppingCriteria,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from alignzoo.contract.rollout import Sampling

WORTH_DROPPING = 0.25  # share of finished rows that pays for moving the others
BLOCK = 512  # tokens whose probabilities are summed in float32
FEW = 8 * BLOCK  # tokens up to which one sum is as fast as two


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


def draw(p: Tensor, u: Tensor) -> Tensor:
    """[B] tokens of p [B, V] by inverse CDF: the first i with CDF_i > u * CDF_V.

    Of a wide p the block of `BLOCK` tokens is found first, by sums in float32, and then the token
    in it, by sums in float64. So blocks begin at points that are off by some 1e-8, which moves as
    much probability between two neighbours, and about one token in 10^4 draws of a vocabulary of
    32,000.
    """
    wide = _wide(p.device)
    u = u.clamp(max=1 - torch.finfo(wide).eps)[:, None]  # u * CDF_V is below CDF_V
    if p.shape[1] <= FEW:
        cdf = p.cumsum(-1, dtype=wide)
        token = torch.searchsorted(cdf, u * cdf[:, -1:], right=True)
        return token[:, 0].clamp(max=p.shape[1] - 1)  # of numbers that are not finite
    blocks = _block_sums(p).cumsum(-1, dtype=wide)  # [B, V / BLOCK]
    target = u * blocks[:, -1:]
    block = torch.searchsorted(blocks, target, right=True).clamp(max=blocks.shape[1] - 1)
    before = pad(blocks, (1, 0)).gather(1, block)
    tokens = block * BLOCK + torch.arange(BLOCK, device=p.device)  # [B, BLOCK]
    inside = p.gather(1, tokens.clamp(max=p.shape[1] - 1)).masked_fill(tokens >= p.shape[1], 0)
    cdf = before + inside.cumsum(-1, dtype=wide)
    first = torch.searchsorted(cdf, target, right=True)
    last = torch.searchsorted(cdf, cdf[:, -1:].contiguous())  # where the block's sum was too large
    return (block * BLOCK + torch.minimum(first, last))[:, 0].clamp(max=p.shape[1] - 1)


def _block_sums(p: Tensor) -> Tensor:
    """[B, ceil(V / BLOCK)]; the last block may be shorter."""
    whole = p.shape[1] // BLOCK * BLOCK
    sums = p[:, :whole].unflatten(1, (-1, BLOCK)).sum(-1)
    rest = p[:, whole:]
    return torch.cat([sums, rest.sum(-1, keepdim=True)], 1) if rest.shape[1] else sums


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64


@dataclass(frozen=True)
class Picker:
    """Draws the next token of every row with the row's own noise.

    Temperature, then top-k, then top-p; no stop token before `min_new_tokens` others, as in
    transformers.
    """

    sampling: Sampling
    stops: Tensor  # int64
    filters: Sequence[Callable[[Tensor, Tensor], Tensor]]

    @classmethod
    def of(cls, sampling: Sampling, device: torch.device) -> Picker:
        """For logits on this device."""
        stops = torch.tensor(sampling.stop_ids, dtype=torch.int64, device=device)
        top_k = [TopKLogitsWarper(sampling.top_k)] if sampling.top_k > 0 else []
        top_p = [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
        return cls(sampling, stops, [*top_k, *top_p])

    def __call__(self, logits: Tensor, u: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Tokens [B] and their log softmax(logits) [B] of the raw logits [B, V]; u [B]."""
        shaped = self._shaped(logits, step)
        if self.sampling.is_greedy:
            token = shaped.argmax(-1)
            return token, _log_prob(logits, token)
        p = shaped.softmax(-1)
        token = draw(p, u)
        if shaped is logits:
            return token, p.gather(1, token[:, None])[:, 0].log()
        return token, _log_prob(logits, token)

    def finished(self, tokens: Tensor) -> Tensor:
        """[B] bool: the tokens [B] that end a response."""
        return (tokens[:, None] == self.stops).any(1)

    def _shaped(self, logits: Tensor, step: int) -> Tensor:
        """The logits [B, V] that are drawn from: the very tensor where nothing shapes them."""
        if step < self.sampling.min_new_tokens:
            logits = logits.index_fill(1, self.stops, -torch.inf)
        if self.sampling.is_greedy:
            return logits
        if self.sampling.temperature != 1:
            logits = logits / self.sampling.temperature
        for keep_top in self.filters:
            logits = keep_top(logits, logits)  # they look at no ids
        return logits


def _log_prob(logits: Tensor, token: Tensor) -> Tensor:
    return (logits.gather(1, token[:, None]) - logits.logsumexp(-1, keepdim=True))[:, 0]


class TokenPicker(LogitsProcessor):
    """Leaves greedy search no other choice than the token that a `Picker` draws.

    Notes the log-probs in `log_probs`.
    """

    def __init__(self, sampling: Sampling, noise: Tensor, prompt_width: int) -> None:
        self.picker = Picker.of(sampling, noise.device)
        self.noise = noise  # [B, max_new_tokens]
        self.prompt_width = prompt_width
        self.log_probs: list[Tensor] = []  # one [B] float32 per step

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V] whose maximum is the drawn token."""
        step = input_ids.shape[1] - self.prompt_width
        token, log_prob = self.picker(scores, self.noise[:, step], step)
        self.log_probs.append(log_prob)
        return scores.scatter(1, token[:, None], torch.inf)


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
