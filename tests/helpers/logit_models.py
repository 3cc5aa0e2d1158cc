"""Models that answer with given numbers, so that a method can be checked without a network.

`evaluate` asks a method what the engine asks it, in the engine's order: snapshots, `prepare`,
signals, `loss`, reduction, gradient. A role's hidden states are its logits (or values) and its
head is the identity, so that the engine's scorers see exactly the given numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alignzoo import Algorithm, Batch, Loss, Max, Mean, Signal, Signals
from alignzoo.engine.models.heads import Head
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.rows import Scorer, dense

Tables = Mapping[str, Tensor]  # role -> [B, S, V] logits, or [B, S, 1] values of a scalar head

SLICES = Fused(budget=1, smallest=3, small=0)  # three positions at a time
SCORERS: Mapping[str, Scorer] = {"dense": dense, "fused": SLICES}


class Alone:
    """The only rank."""

    def sum(self, x):
        return x

    def mean(self, x, mask):
        return x[mask].mean()


@dataclass(frozen=True)
class Evaluation:
    """What one pass of a method gave."""

    batch: Batch
    signals: Signals
    prepared: Signals
    loss: Loss
    total: Tensor  # []
    tables: Tables

    def gradient(self, role: str = "policy") -> Tensor:
        """[B, S, V] of the total by the role's table; zero where nothing reached it."""
        table = self.tables[role]
        return torch.zeros_like(table) if table.grad is None else table.grad


def identity_head(table: Tensor) -> Head:
    """A head that gives back its input."""
    width = table.shape[-1]
    linear = nn.Linear(width, width, bias=False, dtype=table.dtype)
    nn.init.eye_(linear.weight)
    return Head(linear.requires_grad_(False))


def read(
    signals: Mapping[str, Signal], batch: Batch, tables: Tables, scorer: Scorer = dense
) -> Signals:
    """{row name: [B, S]} of signals, zero outside their positions."""
    heads = {role: identity_head(table) for role, table in tables.items()}
    out = {}
    for name, signal in signals.items():
        mask = signal.mask(batch)
        hidden = {role: tables[role][mask] for role in signal.roles}
        used = {role: heads[role] for role in signal.roles}
        for row, x in scorer(hidden, used, batch.labels[mask], {name: signal}).items():
            out[row] = x.new_zeros(mask.shape).masked_scatter(mask, x)
    return out


def evaluate(
    algorithm: Algorithm,
    batch: Batch,
    tables: Tables,
    scorer: Scorer = dense,
    start: Tables | None = None,
) -> Evaluation:
    """Loss and gradient of a batch; `start` holds what snapshots see when it is not the same."""
    with torch.no_grad():
        snapshots = read(algorithm.snapshots(), batch, start or tables, scorer)
        prepared = algorithm.prepare(batch, snapshots, Alone())
    trained = {role for role, part in algorithm.roles.items() if part.trainable}
    leaves = {r: x.clone().requires_grad_(r in trained) for r, x in tables.items()}
    live = read(algorithm.signals(), batch, leaves, scorer)
    for row in live.values():
        if row.requires_grad:
            row.retain_grad()
    signals = {**snapshots, **prepared, **live}
    loss = algorithm.loss(batch, signals, algorithm.init_state())
    total = sum(reduced([loss]).values())
    total.backward()
    return Evaluation(batch, signals, prepared, loss, total.detach(), leaves)


def reduced(parts: Sequence[Loss]) -> dict[str, Tensor]:
    """Each term of a batch cut into parts: scale * sum(value * weight) / sum(weight)."""
    out = {}
    for name, first in parts[0].named.items():
        terms = [part.named[name] for part in parts]
        above = sum((term.value * term.weights).sum() for term in terms)
        out[name] = first.scale * above / sum(term.weights.sum() for term in terms)
    return out


def metrics(algorithm: Algorithm, loss: Loss) -> dict[str, float]:
    """The declared metrics of one batch."""
    assert set(loss.metrics) <= set(algorithm.metrics)
    return {name: _metric(x).item() for name, x in loss.metrics.items()}


def _metric(metric: Mean | Max | Tensor) -> Tensor:
    if isinstance(metric, Tensor):
        return metric.mean()
    value = metric.value
    weight = torch.ones_like(value) if metric.weight is None else metric.weight.to(value)
    if isinstance(metric, Max):
        return value[weight > 0].max()
    return (value * weight).sum() / weight.sum()
