"""The most probable tokens at a position, as rows that a scorer can return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.contract.types import Batch, Outputs, Signal

Logits = Callable[[Outputs], Tensor]  # {role: [n, V]} -> [n, V]


@dataclass(frozen=True)
class Top:
    """The k most probable next tokens at some positions, and the token that stands there."""

    ids: Tensor  # [n, k] int64
    shares: Tensor  # [n, k] float32: probabilities
    own: Tensor  # [n] float32: probability of the row's own next token


def probabilities(logits: Tensor) -> Tensor:
    """[n, V] softmax in at least float32; of logits that are +inf, all mass evenly on those."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    endless = logits.isposinf()
    shares = endless / endless.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(endless.any(-1, keepdim=True), shares, logits.softmax(-1))


def top_signal(
    roles: tuple[str, ...], logits: Logits, k: int, positions: Callable[[Batch], Tensor]
) -> Signal:
    """The k largest probabilities with their ids, and that of the label, as 2 k + 1 rows.

    Ids travel as float32, which holds every whole number below 2 ** 24.
    """

    def reduce(out: Outputs, labels: Tensor) -> dict[str, Tensor]:
        p = probabilities(logits(out))
        shares, ids = p.topk(min(k, p.shape[-1]), dim=-1)
        rows = {f"p{i}": x for i, x in enumerate(shares.unbind(-1))}
        rows |= {f"id{i}": x.to(p.dtype) for i, x in enumerate(ids.unbind(-1))}
        return {**rows, "own": p.gather(-1, labels[:, None]).squeeze(-1)}

    return Signal(roles, reduce, positions)


def read_top(name: str, rows: Mapping[str, Tensor]) -> Top:
    """What `top_signal` found, from rows [n] called "name/p0", "name/id0", ..."""
    k = sum(row.startswith(f"{name}/id") for row in rows)
    ids = torch.stack([rows[f"{name}/id{i}"] for i in range(k)], -1)
    shares = torch.stack([rows[f"{name}/p{i}"] for i in range(k)], -1)
    return Top(ids.long(), shares, rows[f"{name}/own"])
