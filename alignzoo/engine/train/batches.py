"""Which items make an optimiser batch, and how it is cut into micro-batches of similar length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.contract.rollout import sample_key
from alignzoo.contract.types import Batch


def permutation(n: int, *key: int | str) -> Tensor:
    """[n] int64: an order that depends on the key alone."""
    generator = torch.Generator().manual_seed(sample_key(*key) % 2**63)
    return torch.randperm(n, generator=generator)


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

    def parts(self, order: Tensor) -> list[Tensor]:
        """All item numbers [n] in batches: no item is left out."""
        return list(order.split(self.sizes(len(order))))


def buffer_cut(cut: Cut, prompts: int, samples_per_prompt: int) -> Cut:
    """How prompts become rollout buffers, if `cut` says how sequences become batches."""
    return Cut(prompts, -(-cut.least // samples_per_prompt))


def optimiser_batches(
    n_items: int, cut: Cut, epochs: Iterable[int], seed: int, shuffle: bool
) -> Iterator[Tensor]:
    """Item numbers of each step, epoch by epoch; every item is in every epoch."""
    for epoch in epochs:
        order = permutation(n_items, seed, "data", epoch) if shuffle else torch.arange(n_items)
        yield from cut.parts(order)


def micro_batches(batch: Batch, items: Tensor, size: int) -> list[Tensor]:
    """Cut items [k] into micro-batches of similar length; the gradient does not depend on it."""
    lengths = batch.attention.sum(-1).view(batch.rows_per_item, -1).amax(0)  # [I]
    order = torch.argsort(lengths[items], stable=True, descending=True)
    return list(items[order].split(size))


def share_of_rank(items: Tensor, rank: int, size: int) -> Tensor:
    """The items of one rank: every size-th, so that ranks differ by one item at most.

    None, where there are fewer items than ranks: such a rank is idle (see `Ranks`).
    """
    return items[rank::size]
