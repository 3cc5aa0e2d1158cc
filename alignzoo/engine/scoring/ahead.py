"""The gradient of a loss before it is known, from the rows of some positions alone.

All other rows are zeros. For a loss whose derivative at a position needs no other position this is
the true upstream gradient; the backward pass compares, so a wrong forecast costs time alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from alignzoo.engine.scoring.rows import Named


@dataclass
class Tally:
    """What happened in an optimiser step."""

    redone: int = 0  # gradients that were formed twice


@dataclass(frozen=True)
class Ahead:
    """What is known of the loss of a micro-batch before its rows are."""

    loss: Callable[[Named], Tensor]  # {row: [B, S]} -> []; rows that are not given are zeros
    separable: bool  # whether a position's derivative was found to need no other position
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True)
class Forecast:
    """`Upstream` of the positions of a mask."""

    ahead: Ahead
    mask: Tensor  # [B, S] bool
    known: Named  # rows [B, S] that were read before
    alone: bool  # no other rows of the micro-batch have a gradient

    def pays(self, chunks: int) -> bool:
        """Always where everything is at hand at once; else until the first miss of a step."""
        whole = chunks == 1 and self.alone
        return whole or (self.ahead.separable and not self.ahead.tally.redone)

    def missed(self) -> None:
        """Count it."""
        self.ahead.tally.redone += 1

    @cached_property
    def places(self) -> Tensor:
        """[N] the positions on the flat grid."""
        return self.mask.flatten().nonzero().squeeze(-1)

    def __call__(self, at: slice, rows: Named, learn: Collection[str]) -> Named:
        """{row: [n]}; a row that the loss does not read is absent."""
        places = self.places[at]
        grids = {name: self._grid(x.detach(), places) for name, x in rows.items()}
        leaves = {name: grids[name].requires_grad_() for name in rows if name in learn}
        with torch.enable_grad():
            value = self.ahead.loss({**self.known, **grids})
        if not value.requires_grad:
            return {}
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        return {
            name: x.flatten()[places]
            for name, x in zip(leaves, found, strict=True)
            if x is not None
        }

    def _grid(self, x: Tensor, places: Tensor) -> Tensor:
        return x.new_zeros(self.mask.numel()).index_copy(0, places, x).view(self.mask.shape)
