"""Hidden states that are known of given answers, and which of them a batch reads.

Of an answer of n tokens there are n + 1: from the position that predicts the first to the last one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from alignzoo.contract.errors import TrainingError
from alignzoo.contract.types import Batch, Item, TextBatch, Tokens
from alignzoo.engine.scoring.packing import Shape

TOGETHER = 256  # rows whose keys are made at once

States: TypeAlias = Mapping[bytes, Tensor]  # key of a row -> [n, H]


@dataclass(frozen=True)
class Answer:
    """A row, and the position of its first state."""

    row: Tokens
    first: int

    @property
    def states(self) -> int:
        """How many there are."""
        return len(self.row) - self.first


def answers_of(items: Sequence[Item], view: str | None) -> dict[bytes, Answer]:
    """Every row once, or every row of a view, by its key."""
    rows = list(dict.fromkeys(row for x in items for row in (x.views[view] if view else x.rows)))
    found: dict[bytes, Answer] = {}
    for i in range(0, len(rows), TOGETHER):
        some = rows[i : i + TOGETHER]
        batch = TextBatch.collate([Item((row,)) for row in some], 0)
        shape = Shape.of(batch)
        known = zip(_keys(batch, shape, range(len(some))), some, _firsts(shape), strict=True)
        found |= {key: Answer(row, first) for key, row, first in known}
    return found


def _keys(batch: Batch, shape: Shape, rows: Iterable[int]) -> list[bytes]:
    """16 bytes that identify a row's tokens and where its answer starts."""
    ids = batch.ids.cpu().numpy()
    return [
        hashlib.blake2b(
            ids[b, : shape.lengths[b]].tobytes() + shape.starts[b].to_bytes(8, "little"),
            digest_size=16,
        ).digest()
        for b in rows
    ]


def _firsts(shape: Shape) -> list[int]:
    return [max(start - 1, 0) for start in shape.starts]


def looked_up(
    states: States, batch: Batch, shape: Shape, rows: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """[n, H] of these rows of a batch, and [B, S] which of them stands where; 0 elsewhere.

    Raises TrainingError for a row that is not there.
    """
    found = [states.get(key) for key in _keys(batch, shape, rows)]
    known = [x for x in found if x is not None]
    if len(known) < len(found):
        raise TrainingError(
            "the hidden states of a row were not kept, because it is none of the data; remove "
            "train.cache_teacher"
        )
    like = next(iter(states.values()))
    columns, firsts = torch.arange(batch.ids.shape[1]), _firsts(shape)
    slots, at = torch.zeros(batch.ids.shape, dtype=torch.int64), 0
    for b, x in zip(rows, known, strict=True):
        slots[b, firsts[b] : shape.lengths[b]] = columns[: len(x)] + at
        at += len(x)
    together = torch.cat([like[:0], *known])
    return together.to(batch.ids.device), slots.to(batch.ids.device)
