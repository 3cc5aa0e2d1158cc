"""Which items make an optimiser batch, and how it is cut into micro-batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, overload

import torch

from alignzoo.contract.rollout import sample_key
from alignzoo.engine.scoring.packing import Packer, batches_of, by_prompt
from alignzoo.engine.train.cut import Cut

if TYPE_CHECKING:
    from torch import Tensor


def permutation(n: int, *key: int | str) -> Tensor:
    """[n] int64: an order that depends on the key alone."""
    generator = torch.Generator().manual_seed(sample_key(*key) % 2**63)
    return torch.randperm(n, generator=generator)


def seed_step(device: str, seed: int, step: int) -> None:
    """Let what is drawn at random in a step depend on its number alone.

    As `torch.manual_seed`, which keeps a stack trace for every kind of device that is absent.
    """
    number = sample_key(seed, "step", step) % 2**63
    if device == "cpu":
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)


@dataclass(frozen=True)
class Schedule(Sequence["Tensor"]):
    """Item numbers of each batch of a stage; every item is in every epoch.

    Any batch is computed from its index, so a schedule of a billion steps takes no room.
    """

    n_items: int
    cut: Cut
    n_batches: int
    seed: int
    shuffle: bool = True

    def __len__(self) -> int:
        return self.n_batches

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < self.n_batches:
            raise IndexError(f"batch {index} of {self.n_batches}")
        epoch, number = divmod(index, self.cut.count(self.n_items))
        return _epoch(self.n_items, self.cut, self.seed if self.shuffle else None, epoch)[number]

    def total(self, updates: Callable[[int], int]) -> int:
        """The sum over all batches of what `updates` gives for a batch's number of items."""
        each = [updates(size) for size in self.cut.sizes(self.n_items)]
        epochs, rest = divmod(self.n_batches, len(each))
        return epochs * sum(each) + sum(each[:rest])


def batches_for(steps: int, updates: Sequence[int]) -> int:
    """How many batches make so many steps, if an epoch's batches serve these numbers of updates."""
    epochs, rest = divmod(steps, sum(updates))
    found = epochs * len(updates)
    for served in updates:
        if rest <= 0:
            break
        found, rest = found + 1, rest - served
    return found


@lru_cache(maxsize=2)
def _epoch(n_items: int, cut: Cut, seed: int | None, epoch: int) -> list[Tensor]:
    """The batches of one epoch; without a seed in the order of the data."""
    order = torch.arange(n_items) if seed is None else permutation(n_items, seed, "data", epoch)
    return cut.parts(order)


def micro_batches(
    packer: Packer, size: int, shared: Callable[[], bool] = lambda: False
) -> list[Tensor]:
    """Cut the items of a batch into micro-batches of similar length; the gradient does not depend
    on it.

    Items of one prompt come together where a model may read it once for all of them, which
    `shared` says.
    """
    batch = packer.batch
    lengths = batch.lengths.view(batch.rows_per_item, -1).amax(0).tolist()
    prompts = by_prompt(packer.shape(None).prompts[: batch.n_items], shared)
    return [torch.tensor(at) for at in batches_of(lengths, prompts, size)]


def share_of_rank(items: Tensor, rank: int, size: int) -> Tensor:
    """The items of one rank: every size-th, so that ranks differ by one item at most.

    None, where there are fewer items than ranks: such a rank is idle (see `Ranks`).
    """
    return items[rank::size]
