"""Methods that use more of the contract than most: groups, roles that move, other prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Hinted(Algorithm[TextBatch]):
    """L = KL(teacher(. | hint) || policy), mean over answers. Source: https://example.org."""

    name = "hinted"
    batch = TextBatch
    roles: ClassVar = {"policy": Role(trainable=True), "teacher": Role(like="policy", sees="hint")}
    metrics: ClassVar = {"likely": Metric("log-probability of an answer behind its hint", "nats")}
    example_meta: ClassVar = {"hint": "psst"}

    def signals(self):
        return {"kl": kl("teacher", "policy")}

    def snapshots(self):
        return {"told": log_prob("teacher")}

    def view(self, name, case):
        hint = case.sample.meta["hint"]
        prompt = case.sample.prompt
        if isinstance(prompt, str):
            return f"{hint} {prompt}"
        return ({**prompt[0], "content": f"{hint} {prompt[0]['content']}"}, *prompt[1:])

    def loss(self, batch, signals, state):
        apart = sequence_sum(signals["kl"], batch.mask)
        return Loss(Term(apart), {"likely": Mean(sequence_sum(signals["told"], batch.mask))})


@dataclass(frozen=True)
class Taught(TextBatch):
    """Answers, and which teacher speaks of each."""

    teacher: torch.Tensor  # [I] float32: 0 or 1


@dataclass(frozen=True)
class TwoTeachers(Algorithm[Taught]):
    """L = KL(teacher_k || policy), k by row, mean over answers. Source: https://example.org."""

    name = "two_teachers"
    batch = Taught
    roles: ClassVar = {"policy": Role(trainable=True), "first": Role(), "second": Role()}

    def signals(self):
        return {name: self.by_row(name, k) for k, name in enumerate(("first", "second"))}

    def by_row(self, role, k):
        def rows(batch):
            return batch.mask & (batch.teacher == k)[:, None]

        return replace(kl(role, "policy"), positions=rows)

    def loss(self, batch, signals, state):
        return Loss(Term(sequence_sum(signals["first"] + signals["second"], batch.mask)))


@dataclass(frozen=True)
class Turning(Algorithm[TextBatch]):
    """L = -S(y) + turned S(y)^2 for likely answers. Source: https://example.org.

    From the third step on the derivative at a position needs the others; made-up rows never show
    it, because the square counts only where every log-probability is that of a small model.
    """

    name = "turning"
    batch = TextBatch
    roles: ClassVar = {"policy": Role(trainable=True)}

    def signals(self):
        return {"policy": log_prob("policy")}

    def init_state(self):
        return {"steps": torch.zeros(())}

    def next_state(self, state, metrics):
        return {"steps": state["steps"] + 1}

    def loss(self, batch, signals, state):
        x, mask = signals["policy"], batch.mask
        likely = (((x < -0.5) & (x > -8)) | ~mask).all(-1) & (mask.sum(-1) > 2)
        turned = (state["steps"] >= 2) & likely & (batch.ids[:, 0] % 2 == 0)
        total = sequence_sum(x, mask)
        return Loss(Term(-total + turned * total**2 / 100))
