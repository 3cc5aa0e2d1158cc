"""Methods that use more of the contract than most: groups of answers, roles that move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from alignzoo import Algorithm, Follow, GroupBatch, Loss, Mean, Metric, Role, Term, TextBatch
from alignzoo.ops import kl, log_prob, sequence_sum


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


@dataclass(frozen=True)
class Mirrored(Algorithm[TextBatch]):
    """L = KL(teacher || policy) - S(y), the teacher an average. Source: https://example.org."""

    name = "mirrored"
    batch = TextBatch
    roles: ClassVar = {"policy": Role(trainable=True), "teacher": Role(like="policy")}
    metrics: ClassVar = {"distance": Metric("KL of teacher and policy, per sequence", low=0.0)}
    rule: ClassVar = Follow("policy", mix=0.5)

    def signals(self):
        return {"kl": kl("teacher", "policy"), "policy": log_prob("policy")}

    def moving(self):
        return {"teacher": self.rule}

    def loss(self, batch, signals, state):
        apart = sequence_sum(signals["kl"], batch.mask)
        likely = sequence_sum(signals["policy"], batch.mask)
        return Loss(Term(apart - likely), {"distance": Mean(apart.detach())})


class Twin(Mirrored):
    """L = KL(policy || policy) = 0, gradient through one of them. Source: https://example.org."""

    name = "twin"
    rule: ClassVar = Follow("policy")


class Renewed(Mirrored):
    """L = KL(teacher || policy), renewed after buffers. Source: https://example.org."""

    name = "renewed"
    rule: ClassVar = Follow("policy", every=2, buffers=True)
