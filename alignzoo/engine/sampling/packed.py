"""Attention of one query a row, whose heads share keys and values that need no copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from alignzoo.engine.models.beside import attend

NAME = "sdpa"
KNOWN = (sdpa_attention_forward, attend)  # not what another package has put there


@contextmanager
def packed() -> Iterator[None]:
    """Bodies with the library's `sdpa` attention read one token of every row.

    Before it learnt the same, the library copied keys and values once per head that shares them: a
    third of a step.
    """
    if ALL_ATTENTION_FUNCTIONS[NAME] not in KNOWN:
        yield
        return
    ALL_ATTENTION_FUNCTIONS[NAME] = _attend
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[NAME]  # which would hide what is registered later


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: Any
) -> tuple[Tensor, None]:
    """[L, 1, H, d] of queries [L, H, 1, d] and keys [L, h, W, d], mask [L, 1, 1, W]."""
    n, heads, _, d = query.shape
    together = query.reshape(n, key.shape[1], heads // key.shape[1], d)
    ungrouped: Any = SimpleNamespace(is_causal=False)
    made, _ = sdpa_attention_forward(ungrouped, together, key, value, mask, **options)
    return made.transpose(1, 2).reshape(n, 1, heads, value.shape[3]), None
