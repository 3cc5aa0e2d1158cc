"""Which items make an optimiser batch, and how it is cut into micro-batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from alignzoo.contract.rollout import sample_key
from alignzoo.contract.types import Batch


def permutation(n: int, *key: int | str) -> Tensor:
    """[n] int64: an order that depends on the key alone."""
    generator = torch.Generator().manual_seed(sample_key(*key) % 2**63)
    return torch.randperm(n, generator=generator)


def optimiser_batches(
    n_items: int, batch_size: int, epochs: int, seed: int, shuffle: bool
) -> Iterator[Tensor]:
    """Item numbers of each step, epoch by epoch.

    The items that do not fill a last batch wait for another epoch, whose order is another one; a
    data set smaller than a batch is one batch.
    """
    size = min(batch_size, n_items)
    for epoch in range(epochs):
        order = permutation(n_items, seed, "data", epoch) if shuffle else torch.arange(n_items)
        yield from order[: n_items // size * size].split(size)


def micro_batches(batch: Batch, items: Tensor, size: int) -> list[Tensor]:
    """Cut items [k] into micro-batches of similar length; the gradient does not depend on it."""
    lengths = batch.attention.sum(-1).view(batch.rows_per_item, -1).amax(0)  # [I]
    order = torch.argsort(lengths[items], stable=True, descending=True)
    return list(items[order].split(size))


def share_of_rank(items: Tensor, rank: int, size: int) -> Tensor:
    """The items of one rank: every size-th, so that ranks differ by one item at most."""
    return items[rank::size]
