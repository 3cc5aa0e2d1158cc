"""Rows and gradients of whole blocks of logits in few passes over memory, where Triton runs.

On a GPU every operation of a closed form reads and writes device memory. Here each row is read once
for its rows and once more for its gradient; nothing [b, V] is made. Numerics: `device.py`.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Kernel -> tokens that a program reads at once, and its warps: the fastest of seven on an H200.
SHAPES = {
    "log_prob": (2048, 8),
    "kl": (2048, 8),
    "compare": (4096, 16),
    "beyond": (4096, 16),
}


def serve(*logits: Tensor) -> bool:
    """Whether the kernels take these logits [b, V]: float32 on a GPU, rows without gaps."""
    return all(_fits(x) for x in logits) and _there()


def _fits(x: Tensor) -> bool:
    placed = x.is_cuda or (x.device.type == "cpu" and _interpreted())
    return placed and x.dtype == torch.float32 and x.stride(-1) == 1


def _interpreted() -> bool:
    """Triton's interpreter runs on any machine, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _there() -> bool:
    return importlib.util.find_spec("triton") is not None


def log_prob(logits: Tensor, labels: Tensor, gradient: Tensor | None) -> Tensor:
    """[b] log p(label); its gradient [b, V] is written to `gradient`, float32 or bfloat16.

    That may lie over the logits, as `Scratch.gradient` and `Scratch.rounded_gradient` say.
    """
    rows, place = _rows(logits), logits if gradient is None else gradient
    given = (logits, labels, rows, place, logits.stride(0), place.stride(0), logits.shape[1])
    _run("log_prob", len(logits), *given, LEARNS=gradient is not None)
    return rows


def kl(p: Tensor, q: Tensor, of: Tensor | None, to: Tensor | None) -> Tensor:
    """[b] KL(p || q) from logits; gradients [b, V] go to `of` (p's) and `to` (q's).

    Each may lie over the logits that it is the gradient of.
    """
    rows, of_place, to_place = _rows(p), p if of is None else of, q if to is None else to
    places = (p, q, rows, of_place, to_place)
    steps = [x.stride(0) for x in (p, q, of_place, to_place)]
    _run("kl", len(p), *places, *steps, p.shape[1], OF=of is not None, TO=to is not None)
    return rows


@dataclass(frozen=True)
class Compared:
    """What one pass finds of a role p and two others, a and b."""

    logits: tuple[Tensor, Tensor, Tensor]  # of p, a, b
    found: Tensor  # float64 [9, b]: max and sum of p, log sums of a, b, E(p-a), E(a-b), TVD, ...

    def _row(self, x: Tensor) -> Tensor:
        return x.to(torch.float32)

    @property
    def total_variation(self) -> Tensor:
        """[b] 1/2 sum |a - b|."""
        return self._row(self.found[6])

    @property
    def ratio_of_label(self) -> Tensor:
        """[b] log a(label) - log b(label)."""
        return self._row(self.found[7] - self._shift)

    @property
    def expected_ratio(self) -> Tensor:
        """[b] E_p (log a - log b)."""
        return self._row(self.found[5] - self._shift)

    @property
    def kl_to_first(self) -> Tensor:
        """[b] KL(p || a)."""
        return self._row(self.found[4] - self._log_sum + self.found[2])

    @property
    def kl_to_second(self) -> Tensor:
        """[b] KL(p || b)."""
        return self._row(self.found[4] + self.found[5] - self._log_sum + self.found[3])

    @property
    def _log_sum(self) -> Tensor:
        return self.found[0] + self.found[1].log()

    @property
    def _shift(self) -> Tensor:
        return self.found[2] - self.found[3]

    def kl_beyond(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        """[b] KL(p || t), t in proportion to a (a/b)^weight.

        Its gradient by the logits of p [b, V] is written to `gradient`, which may lie over those.
        """
        p, a, b = self.logits
        rows, place = _rows(p), p if gradient is None else gradient
        steps = [x.stride(0) for x in (p, a, b, place)]
        given = (p, a, b, weight.to(torch.float32), self.found, rows, place, *steps, *p.shape)
        _run("beyond", len(p), *given, LEARNS=gradient is not None)
        return rows


def compare(p: Tensor, a: Tensor, b: Tensor, labels: Tensor) -> Compared:
    """Three roles at once, from logits [b, V]."""
    found = torch.empty(9, len(p), dtype=torch.float64, device=p.device)
    steps = [x.stride(0) for x in (p, a, b)]
    _run("compare", len(p), p, a, b, labels, found, *steps, *p.shape)
    return Compared((p, a, b), found)


def _rows(like: Tensor) -> Tensor:
    return torch.empty(len(like), dtype=torch.float32, device=like.device)


def _run(name: str, n: int, *given: Any, **constants: bool) -> None:
    from alignzoo.closed import device

    block, warps = SHAPES[name]
    if n:
        getattr(device, name)[(n,)](*given, **constants, BLOCK=block, num_warps=warps)
