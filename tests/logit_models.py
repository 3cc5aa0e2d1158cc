"""Models that answer with given numbers, so that a method can be checked without a network.

`evaluate` asks a method what the engine asks it, in the engine's order: snapshots, `prepare`,
signals, `loss`, reduction, gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from alignzoo import Algorithm, Batch, Loss, Max, Mean, Signal, Signals
from alignzoo.engine.scoring import Chunked, Scorer, ScoringModule, dense


class Table(nn.Module):
    """A model whose hidden states [B, S, H] are a table and whose head is the identity."""

    def __init__(self, table: Tensor, head: str) -> None:
        super().__init__()
        width = table.shape[-1]
        linear = nn.Linear(width, width, bias=False, dtype=table.dtype)
        nn.init.eye_(linear.weight)
        self.table = nn.Parameter(table.clone())
        self.head, self.score = (None, linear) if head == "scalar" else (linear, None)

    @property
    def base_model(self):
        return self

    def forward(self, **_):
        return SimpleNamespace(last_hidden_state=self.table)

    def get_output_embeddings(self):
        return self.head


SLICES = Chunked(budget=1, smallest=3)  # three positions at a time, recomputed in the backward pass
SCORERS: Mapping[str, Scorer] = {"dense": dense, "chunked": SLICES}


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
    models: Mapping[str, Table]

    def gradient(self, role: str = "policy") -> Tensor:
        """[B, S, V] of the total by the role's table; zero where nothing reached it."""
        table = self.models[role].table
        return torch.zeros_like(table) if table.grad is None else table.grad


def read(
    signals: Mapping[str, Signal],
    batch: Batch,
    models: Mapping[str, Table],
    trainable: frozenset[str] = frozenset(),
    scorer: Scorer = dense,
) -> Signals:
    """{row name: [B, S]} of signals under models."""
    return ScoringModule(models, trainable, scorer)(batch, signals)


def evaluate(
    algorithm: Algorithm,
    batch: Batch,
    tables: Mapping[str, Tensor],
    scorer: Scorer = dense,
    start: Mapping[str, Tensor] | None = None,
) -> Evaluation:
    """Loss and gradient of a batch; `start` holds what snapshots see when it is not the same."""
    roles = algorithm.roles
    trainable = frozenset(role for role in tables if roles[role].trainable)
    before = {r: Table(x, roles[r].head) for r, x in (start or tables).items()}
    with torch.no_grad():
        snapshots = dict(read(algorithm.snapshots(), batch, before, scorer=scorer))
        prepared = algorithm.prepare(batch, snapshots, Alone())
    models = {r: Table(x, roles[r].head) for r, x in tables.items()}
    live = dict(read(algorithm.signals(), batch, models, trainable, scorer))
    for row in live.values():
        if row.requires_grad:
            row.retain_grad()
    signals = {**snapshots, **prepared, **live}
    loss = algorithm.loss(batch, signals, algorithm.init_state())
    total = sum(reduced([loss]).values())
    total.backward()
    return Evaluation(batch, signals, prepared, loss, total.detach(), models)


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
