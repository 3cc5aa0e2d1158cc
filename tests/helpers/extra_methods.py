"""Methods that use more of the contract than most: groups of answers, numbers of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from alignzoo import Algorithm, GroupBatch, Loss, Mean, Metric, Role, Term, TextBatch
from alignzoo.ops import log_prob, sequence_sum


@dataclass(frozen=True)
class Grouped(Algorithm[GroupBatch]):
    """L = -sum_k (s_k - mean s) S(y_k), mean over prompts. Source: https://example.org."""

    name = "grouped"
    batch = GroupBatch
    roles: ClassVar = {"policy": Role(trainable=True)}
    metrics: ClassVar = {"spread": Metric("largest less least score of a group")}

    def signals(self):
        return {"policy": log_prob("policy")}

    def side_by_side(self, batch, x):
        return batch.by_group(x)

    def loss(self, batch, signals, state):
        score = self.side_by_side(batch, batch.score)  # [I, k]
        total = self.side_by_side(batch, sequence_sum(signals["policy"], batch.mask))  # [I, k]
        above = score - score.mean(-1, keepdim=True)
        spread = score.amax(-1) - score.amin(-1)
        return Loss(Term(-(above * total).sum(-1)), {"spread": Mean(spread)})


@dataclass(frozen=True)
class Marked(TextBatch):
    """Answers with a number of the prompt's row."""

    mark: torch.Tensor  # [I] float32


class OfMarked(Grouped):
    """L = -mark S(y). Source: https://example.org."""

    batch = Marked
    metrics: ClassVar = {}

    def loss(self, batch, signals, state):
        return Loss(Term(-batch.mark * sequence_sum(signals["policy"], batch.mask)))
