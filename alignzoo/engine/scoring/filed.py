"""Stored values by the number of an item, so that rows are hashed once and not at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.contract.errors import TrainingError
from alignzoo.contract.types import Batch, Item
from alignzoo.engine.scoring.snapshots import Stored, row_key, single


@dataclass(frozen=True)
class Filed:
    """Per-token values of n items with k rows each, one after the other."""

    values: Tensor  # [total]
    starts: Tensor  # [k, n] int64: where a row's values begin
    lengths: Tensor  # [k, n] int64

    def fill(self, numbers: Tensor, batch: Batch) -> Tensor:
        """[B, S] for the batch that these items [I] make; 0 behind the end of a row."""
        starts, lengths = (x[:, numbers].flatten()[:, None] for x in (self.starts, self.lengths))
        column = torch.arange(batch.ids.shape[1])
        known = self.values[(starts + column).clamp(max=len(self.values) - 1)]
        return torch.where(column < lengths, known, 0.0)


def filed(stored: Stored, items: Sequence[Item], kind: type[Batch]) -> Filed:
    """What is stored of the rows of some items; a missing row is an error, never 0."""
    keys = [
        row_key(single(item, k), stored.views) for k in range(kind.rows_per_item) for item in items
    ]
    found = [stored.values.get(key) for key in keys]
    rows = [x for x in found if x is not None]
    if len(rows) < len(keys):
        raise TrainingError("a cached snapshot lacks a sequence; delete the cache folder")
    lengths = torch.tensor([len(x) for x in rows])
    shape = (kind.rows_per_item, -1)
    starts = lengths.cumsum(0) - lengths
    return Filed(torch.cat(rows), starts.view(shape), lengths.view(shape))
