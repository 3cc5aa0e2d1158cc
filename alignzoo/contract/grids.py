"""Rows of tokens and numbers of items as tensors."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Row(Protocol):
    """What `types.Tokens` are."""

    @property
    def prompt(self) -> tuple[int, ...]:
        """Ids before the answer."""
        ...

    @property
    def response(self) -> tuple[int, ...]:
        """Ids of the answer."""
        ...

    @property
    def learnt(self) -> tuple[bool, ...] | None:
        """Which of them are learnt; None: all."""
        ...


def grid(rows: Sequence[Row], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids [B, S] int64, padded on the right, where there are tokens [B, S], where answers are."""
    before = [len(row.prompt) for row in rows]
    sizes = [n + len(row.response) for n, row in zip(before, rows, strict=True)]
    column = torch.arange(max(sizes))
    attention = column < torch.tensor(sizes)[:, None]
    ids = torch.full(attention.shape, pad_id, dtype=torch.int64)
    parts = (part for row in rows for part in (row.prompt, row.response))
    tokens = array("q", [x for part in parts for x in part])
    if tokens:  # many times faster than a tensor of a list
        ids.masked_scatter_(attention, torch.frombuffer(tokens, dtype=torch.int64))
    response = attention & (column >= torch.tensor(before)[:, None])
    for b, row in enumerate(rows):
        if row.learnt is not None:
            response[b, before[b] : sizes[b]] = torch.tensor(row.learnt)
    return ids, attention, response


def column_of(values: Sequence[float | tuple[float, ...]], rows: int) -> Tensor:
    """[I] of numbers, or [B] of a number for each row."""
    if isinstance(values[0], tuple):
        return torch.tensor([float(x[k]) for k in range(rows) for x in values])  # type: ignore[index]
    return torch.tensor([float(x) for x in values])  # type: ignore[arg-type]
