"""Prompts side by side, and rows of sampled tokens as completions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alignzoo.contract.rollout import Completion


def left_pad(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids [B, P] int64, and attention [B, P] int64: 0 on padding."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    attention = (torch.arange(width) >= width - lengths[:, None]).long()
    return ids.to(device), attention.to(device)


def completions(tokens: Tensor, log_probs: Tensor, stop_ids: Sequence[int]) -> list[Completion]:
    """Rows of tokens and log-probs [B, n], each cut behind its first stop token."""
    stops = frozenset(stop_ids)
    return [
        _completion(ids, values, stops)
        for ids, values in zip(tokens.tolist(), log_probs.tolist(), strict=True)
    ]


def _completion(ids: list[int], log_probs: list[float], stops: frozenset[int]) -> Completion:
    ends = (t for t, token in enumerate(ids, start=1) if token in stops)
    length = next(ends, None)
    return Completion(tuple(ids[:length]), tuple(log_probs[:length]), length is not None)
