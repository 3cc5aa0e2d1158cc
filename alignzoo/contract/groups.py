"""Batches of all answers to a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from alignzoo.contract.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GroupBatch(Batch):
    """All answers that the policy sampled to a prompt as one item: B = kI, and each one's score."""

    score: Tensor  # [B] float32: from a judge or a scalar-head role; 0 without one
    ended: Tensor  # [B] float32: 1 if a stop token was sampled, 0 if cut at the length limit

    @classmethod
    def of(cls, k: int) -> type[Self]:
        """The kind with k answers in a group; the same class for the same k."""
        sized: type[Self] = _sized(cls, k)  # type: ignore[arg-type]  # classes are hashable
        return sized

    def by_group(self, x: Tensor) -> Tensor:
        """[I, k, ...] of x [B, ...]: the answers to one prompt side by side."""
        return x.view(self.rows_per_item, -1, *x.shape[1:]).transpose(0, 1)


@cache
def _sized(kind: Any, k: int) -> Any:
    return type(f"{kind.__name__}Of{k}", (kind,), {"rows_per_item": k, "__doc__": kind.__doc__})
