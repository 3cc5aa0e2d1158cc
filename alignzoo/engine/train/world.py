"""What `prepare` may know beyond its own rows: sums over all ranks, the state, and fair noise."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignzoo.contract.errors import PluginError
from alignzoo.contract.rollout import sample_key
from alignzoo.contract.types import Batch, State
from alignzoo.engine.parallel.ranks import Ranks


@dataclass
class BufferWorld:
    """The world of one call of `prepare`; implements `types.World`."""

    ranks: Ranks
    batch: Batch
    state: State = field(default_factory=dict)
    key: tuple[int | str, ...] = ()  # (seed, ..., buffer)
    draws: int = 0  # calls of `uniform` so far: each is noise of its own

    def sum(self, x: Tensor) -> Tensor:
        """Sum x over all ranks."""
        return self.ranks.sum(x)

    def mean(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mean of x where mask, over all ranks: a scalar."""
        return self.ranks.mean(x, mask)

    def uniform(self, like: Tensor) -> Tensor:
        """Noise in [0, 1) of the shape of `like`: [I], [B] or [B, S].

        A row's numbers depend on the seed, the buffer, the number of the call and the row's
        tokens: not on its neighbours, the padding or the number of ranks. Equal rows get equal
        noise. Raises PluginError for another shape.
        """
        self.draws += 1
        rows, noise = self._rows(), list[Any]()
        if like.shape == self.batch.ids.shape:
            noise = [self._noise(row, like.shape[1]) for row in rows]
        elif like.shape in ((len(rows),), (self.batch.n_items,)):
            noise = [self._noise(row, 1)[0] for row in self._grouped(rows, len(like))]
        else:
            raise PluginError(f"world.uniform: {tuple(like.shape)} is not [I], [B] or [B, S]")
        dtype = like.dtype if like.is_floating_point() else torch.float32
        return torch.tensor(noise, dtype=torch.float64).to(like.device, dtype)

    def _rows(self) -> list[str]:
        """The ids of every row, without padding, and where its response starts."""
        ids, lengths = self.batch.ids.tolist(), self.batch.attention.sum(-1).tolist()
        prompts = (self.batch.attention & ~self.batch.response).sum(-1).tolist()
        return [f"{p}:{row[:n]}" for row, n, p in zip(ids, lengths, prompts, strict=True)]

    def _grouped(self, rows: Sequence[str], n: int) -> list[str]:
        """One text per row, or per item."""
        return [" ".join(rows[i::n]) for i in range(n)]

    def _noise(self, row: str, n: int) -> list[float]:
        source = random.Random(sample_key(*self.key, "uniform", self.draws, row))
        return [source.random() for _ in range(n)]
