"""G-OPD and ExOPD, arXiv:2602.12125, and delta distillation, arXiv:2607.15161."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from alignzoo import (
    Algorithm,
    Loss,
    Mean,
    Metric,
    Outputs,
    Role,
    RolloutBatch,
    Scratch,
    Signal,
    Signals,
    State,
    TextBatch,
    ops,
    option,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RewardDistillation(Algorithm[TextBatch]):
    """L = mean_b 1/n_b sum_t -E_pi[reward - regulariser], the expectation over the vocabulary."""

    batch: ClassVar[type[TextBatch]] = TextBatch
    roles = {
        "policy": Role(trainable=True, doc="the student"),
        "teacher": Role(doc="the model that went further"),
        "reference": Role(doc="where the teacher came from, or the student's start"),
    }
    metrics = {
        "reward/token": Metric("E_pi log(teacher/reference), mean over tokens", "nats"),
        "kl_full/teacher_token": Metric("KL(policy || teacher) per token", "nats", 0.0),
        "kl_full/reference_token": Metric("KL(policy || reference) per token", "nats", 0.0),
    }

    def signals(self) -> Mapping[str, Signal]:
        """Everything is read in one pass over the three models' logits."""
        roles = ("policy", "teacher", "reference")
        return {"distil": Signal(roles, self.rows, closed=self.closed)}

    def value(self, policy: Tensor, teacher: Tensor, reference: Tensor) -> Tensor:
        """[n] loss of a position from log-probabilities [n, V]."""
        raise TypeError(f"{type(self).__name__} defines no value")

    def inside(self, ratio: Tensor, reward: Tensor, seen: Signals) -> Tensor:
        """[b, V] f of a loss E_pi f(v), in either place.

        From log(pi/reference) and log(teacher/reference), and what the metrics show [b].
        """
        raise TypeError(f"{type(self).__name__} defines no inside")

    def rows(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """[n] rows: the loss with gradient, and what the metrics need without."""
        pi, teacher, reference = (ops.log_softmax(outputs[role]) for role in self.roles)
        with torch.no_grad():
            seen = {
                "reward/token": ops.expectation(pi, ops.log_ratio(teacher, reference)),
                "kl_full/teacher_token": ops.kl_divergence(pi, teacher),
                "kl_full/reference_token": ops.kl_divergence(pi, reference),
            }
        return {"loss": self.value(pi, teacher, reference), **seen}

    def closed(
        self, outputs: Outputs, labels: Tensor, scratch: Scratch, wanted: Collection[str]
    ) -> tuple[dict[str, Tensor], Outputs]:
        """The same rows and the gradient of the first, a few positions at a time."""
        p = scratch.probs("policy")
        pi, teacher, reference = (scratch.log_probs(role) for role in self.roles)
        reward, ratio = scratch.empty("reward", pi), scratch.empty("ratio", pi)
        torch.sub(teacher, reference, out=reward)
        seen = {"reward/token": ops.expected(p, reward, ratio)}
        torch.sub(pi, teacher, out=ratio)
        seen["kl_full/teacher_token"] = ops.expected(p, ratio, ratio)
        torch.sub(pi, reference, out=ratio)
        products = scratch.empty("product", pi)
        seen["kl_full/reference_token"] = ops.expected(p, ratio, products)
        loss = ops.expected(p, self.inside(ratio, reward, seen), products)
        rows = {"loss": loss, **seen}
        if "policy" not in wanted:
            return rows, {}
        place = scratch.gradient("policy")
        return rows, {"policy": ops.expected_gradient(p, products, loss, place)}

    def loss(self, batch: TextBatch, signals: Signals, state: State) -> Loss:
        """One value per sequence."""
        term = ops.sequence_mean_term(signals["distil/loss"], batch.mask)
        rows = {name: signals[f"distil/{name}"] for name in self.metrics}
        return Loss(term, {n: Mean(ops.sequence_mean(x, batch.mask)) for n, x in rows.items()})


@dataclass(frozen=True)
class GOPD(RewardDistillation):
    """L = mean_b 1/n_b sum_t [KL(pi || ref) - reward_scale E_pi log(teacher/ref)].

    Both over the full vocabulary at every position. reward_scale 1 is KL(pi || teacher), below 1
    interpolates, above 1 goes beyond the teacher. Source: arXiv:2602.12125. Up to a number without
    gradient it is KL(pi || softmax(z_ref + reward_scale (z_teacher - z_ref))): `aligndistil` with
    reward: vanilla, extrapolation: constant, beta_weighting: none and beta0/beta = reward_scale.
    Deviation: the paper estimates the expectation from the sampled token.
    """

    name = "g_opd"

    reward_scale: float = option(1.0, "weight of the reward against the KL", gt=0)

    def value(self, policy: Tensor, teacher: Tensor, reference: Tensor) -> Tensor:
        """[n] loss of a position."""
        reward = ops.expectation(policy, ops.log_ratio(teacher, reference))
        return ops.kl_divergence(policy, reference) - self.reward_scale * reward

    def inside(self, ratio: Tensor, reward: Tensor, seen: Signals) -> Tensor:
        """[b, V] log(pi/reference) - reward_scale log(teacher/reference)."""
        return ratio.sub_(reward, alpha=self.reward_scale)


@dataclass(frozen=True)
class ExOPD(GOPD):
    """L = mean_b 1/n_b sum_t [KL(pi || ref) - reward_scale E_pi log(teacher/ref)].

    G-OPD with reward_scale above 1: reward extrapolation. Source: arXiv:2602.12125.
    """

    name = "exopd"

    reward_scale: float = option(1.25, "weight of the reward against the KL, above 1", gt=1)


@dataclass(frozen=True)
class OPD2(RewardDistillation):
    """L = mean_b 1/n_b sum_t -E_pi sg[A if A A_teacher > 0 else 0], A = r - E_pi r.

    r = log(teacher/reference), what the teacher learnt since the reference, its base model; A says
    which tokens that speaks for. A_teacher is the same of log(teacher/pi): a token counts where
    both agree, so a student that has become its teacher is at rest. sg: no gradient; expectations
    over the vocabulary. Source: on-policy delta distillation, arXiv:2607.15161; its formulas are
    known here from summaries and a port of the authors' code. Deviations: the paper's policy
    gradient takes the sampled token, and the 1024 most probable ones for E_pi r; here both are
    exact. The loss is no distance: its value need not fall.
    """

    name = "opd2"
    batch = RolloutBatch
    assumes_policy_samples = True

    def value(self, policy: Tensor, teacher: Tensor, reference: Tensor) -> Tensor:
        """[n] loss of a position."""
        with torch.no_grad():
            gain = _advantage(policy, ops.log_ratio(teacher, reference))
            towards = _advantage(policy, ops.log_ratio(teacher, policy))
            agreed = gain.masked_fill(gain * towards <= 0, 0.0)
        return -ops.expectation(policy, agreed)

    def inside(self, ratio: Tensor, reward: Tensor, seen: Signals) -> Tensor:
        """[b, V] -A where the teacher agrees."""
        towards = ratio.neg_().add_(reward).add_(seen["kl_full/teacher_token"][:, None])
        gain = reward.sub_(seen["reward/token"][:, None])
        return gain.neg().masked_fill_(towards.mul_(gain) <= 0, 0.0)


def _advantage(policy: Tensor, reward: Tensor) -> Tensor:
    """[n, V] reward less its expectation under the policy."""
    return reward - ops.expectation(policy, reward)[:, None]
