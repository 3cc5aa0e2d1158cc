"""How many items make an optimiser batch. A plan asks it, so this does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Cut:
    """How many items make a batch: `size`, and fewer in an epoch's last one.

    Fewer than `least` are no batch of their own: they join the one before them.
    """

    size: int
    least: int = 1

    def count(self, n_items: int) -> int:
        """How many batches n items make."""
        full, rest = divmod(n_items, self.size)
        return max(1, full + (rest >= max(1, self.least)))

    def sizes(self, n_items: int) -> list[int]:
        """How many items each batch has."""
        n = self.count(n_items)
        return [*[self.size] * (n - 1), n_items - self.size * (n - 1)]

    def updates(self, n_items: int, epochs: int) -> int:
        """Optimiser steps on a rollout buffer of so many items."""
        return epochs * self.count(n_items)

    def parts(self, order: Tensor) -> list[Tensor]:
        """All item numbers [n] in batches: no item is left out."""
        return list(order.split(self.sizes(len(order))))


def buffer_cut(cut: Cut, prompts: int, items_per_prompt: int) -> Cut:
    """How prompts become rollout buffers, if `cut` says how items become batches."""
    return Cut(prompts, -(-cut.least // items_per_prompt))
