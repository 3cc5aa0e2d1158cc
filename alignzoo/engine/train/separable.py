"""Whether d loss / d row of a position needs no other position: then gradients can be formed ahead.

A guess, from made-up rows: a wrong one costs time until the first step that shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.contract.types import Batch, Signal, Signals

SIZES = (1.0, 100.0)  # of made-up rows: a hinge is flat here or there
SPLITS = 4  # at random: rows that belong together may fall on every n-th position
CLOSE = 1e-6


@dataclass(frozen=True)
class Drawn:
    """Rows below zero at some positions, made when they are asked for; what is known as it is."""

    known: Signals
    batch: Batch
    signals: Mapping[str, Signal]  # those with rows
    size: float
    read: Tensor  # [B, S] bool: where rows are not zero
    leaves: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        if name in self.known:
            return self.known[name]
        if name not in self.leaves:
            self.leaves[name] = self._made(name)
        return self.leaves[name]

    def get(self, name: str, default: Tensor | None = None) -> Tensor:
        """As `[]`: every name is known here."""
        return self[name]

    def _made(self, name: str) -> Tensor:
        """The same numbers whatever else is read."""
        own = [x for n, x in self.signals.items() if name == n or name.startswith(f"{n}/")]
        generator = torch.Generator().manual_seed(sum(name.encode()))
        drawn = torch.rand(self.read.shape, generator=generator).to(self.batch.ids.device)
        mask = own[0].mask(self.batch) if own else torch.zeros_like(self.read)
        return (-self.size * drawn * (mask & self.read)).requires_grad_()


def is_separable(
    value: Callable[[Signals], Tensor], batch: Batch, known: Signals, signals: Mapping[str, Signal]
) -> bool:
    """Whether leaving out other positions changed no derivative; False where the loss fails."""
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(batch.ids.shape, generator=generator) < 0.5 for _ in range(SPLITS)]
    try:
        return all(_agrees(value, batch, known, signals, masks, size) for size in SIZES)
    except Exception:  # made-up rows may be none that a method can take
        return False


def _agrees(
    value: Callable[[Signals], Tensor],
    batch: Batch,
    known: Signals,
    signals: Mapping[str, Signal],
    masks: list[Tensor],
    size: float,
) -> bool:
    everywhere = torch.ones_like(batch.attention)
    whole = _derivatives(value, Drawn(known, batch, signals, size, everywhere))
    for mask in masks:
        there = mask.to(everywhere.device)
        part = _derivatives(value, Drawn(known, batch, signals, size, there))
        if not all(_same(x, whole, name, there) for name, x in part.items()):
            return False
    return True


def _derivatives(value: Callable[[Signals], Tensor], rows: Drawn) -> dict[str, Tensor]:
    with torch.enable_grad():
        total = value(rows)  # type: ignore[arg-type]
    names = list(rows.leaves)
    if not total.requires_grad:
        return {name: torch.zeros_like(rows.leaves[name]) for name in names}
    leaves = [rows.leaves[name] for name in names]
    found = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def _same(part: Tensor, whole: Mapping[str, Tensor], name: str, mask: Tensor) -> bool:
    if name not in whole:
        return False
    near = part.isclose(whole[name], rtol=CLOSE, atol=0.0, equal_nan=True)
    return bool((near | ~mask).all())
