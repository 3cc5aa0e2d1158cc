"""Which metrics of a method are taken against a role: those that change with what it says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.types import Batch, Item, Max, Mean, State, Tokens

if TYPE_CHECKING:
    from torch import Tensor

WORDS, ITEMS, TRIES = 5, 8, 3
OF_TOKENS = ("ids", "attention", "response", "views")


def taken_against(method: Any, roles: Collection[str]) -> set[str]:
    """Names of metrics, "loss" among them, that change with what these roles say.

    Tried on random numbers; all of them where a method cannot be tried so.
    """
    try:
        first, *others = (_logged(method, roles, seed) for seed in range(TRIES))
    except Exception:  # a stranger's method may raise anything on made-up numbers
        return {"loss", *method.metrics}
    return {n for n, x in first.items() if not all(torch.equal(x, other[n]) for other in others)}


@dataclass(frozen=True)
class _Alone:
    """The world of a single process."""

    state: State

    def uniform(self, like: Tensor) -> Tensor:
        return torch.full_like(like, 0.5)

    def sum(self, x: Tensor) -> Tensor:
        return x

    def mean(self, x: Tensor, mask: Tensor) -> Tensor:
        return x[mask].mean()


def _logged(method: Any, roles: Collection[str], seed: int) -> dict[str, Tensor]:
    """Loss and metrics on a toy batch; what `roles` say depends on the seed."""
    kind = method.batch.of(2) if issubclass(method.batch, GroupBatch) else method.batch
    batch = kind.collate([_item(kind, n) for n in range(ITEMS)], 0)
    outputs = {}
    for n, (name, role) in enumerate(method.roles.items()):
        own = torch.Generator().manual_seed(100 * n + (seed if name in roles else 0))
        width = WORDS if role.head == "lm" else 1
        outputs[name] = torch.randn(batch.ids.numel(), width, generator=own, dtype=torch.float64)
    state = method.init_state()
    given = _read(method.snapshots(), batch, outputs)
    given |= method.prepare(batch, given, _Alone(state))
    found = method.loss(batch, {**given, **_read(method.signals(), batch, outputs)}, state)
    values = {name: _value(x) for name, x in found.metrics.items()}
    return {**values, "loss": torch.cat([x.value.flatten() for x in found.named.values()])}


def _item(kind: type[Batch], n: int) -> Item:
    """Answers of several lengths; what they earn differs, also within a group."""
    rows = [Tokens((1, 2), (3,) * (1 + (n + k) % 3)) for k in range(kind.rows_per_item)]
    earned = tuple((3 * n + 2 * k) % 5 - 1.0 for k in range(len(rows)))
    whole = issubclass(kind, GroupBatch)
    known = {
        "reward": earned[0],
        "group": float(n // 2),
        "score": earned if whole else earned[0],
        "ended": (1.0,) * len(rows) if whole else 1.0,
    }
    names = [f.name for f in fields(kind) if f.name not in OF_TOKENS]
    return Item(tuple(rows), {name: known.get(name, float(n % 2)) for name in names})


def _read(
    signals: Mapping[str, Any], batch: Batch, outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What the engine would hand to `loss`: [B, S] per signal, zero outside its positions."""
    found: dict[str, Tensor] = {}
    for name, signal in signals.items():
        rows = signal.reduce({r: outputs[r] for r in signal.roles}, batch.labels.flatten())
        named = (
            {name: rows}
            if isinstance(rows, torch.Tensor)
            else {f"{name}/{k}": rows[k] for k in rows}
        )
        outside = ~signal.mask(batch)
        found |= {k: x.view(batch.ids.shape).masked_fill(outside, 0.0) for k, x in named.items()}
    return found


def _value(x: Mean | Max | Tensor) -> Tensor:
    return x if isinstance(x, torch.Tensor) else x.value
