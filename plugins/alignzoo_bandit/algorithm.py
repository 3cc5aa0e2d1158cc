"""Sentence-level policy gradient on the contrastive DPO reward, arXiv:2503.02832 Eq. 42."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from alignzoo import (
    Algorithm,
    Loss,
    Mean,
    Metric,
    Role,
    RolloutBatch,
    Signal,
    Signals,
    State,
    Term,
    ops,
    option,
)

if TYPE_CHECKING:
    from torch import Tensor

# log(pi/pi_dpo)(y_t) and the token's full KL -> what the reward pays, what the loss pays: [B, S].
KL_MODES: Mapping[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "in_reward": lambda log_ratio, _: (log_ratio, torch.zeros_like(log_ratio)),
    "literal": lambda log_ratio, _: (torch.zeros_like(log_ratio), log_ratio),
    "exact_token_kl": lambda log_ratio, kl: (torch.zeros_like(log_ratio), kl),
}


@dataclass(frozen=True)
class Bandit(Algorithm[RolloutBatch]):
    """L = -mean_b 1/n_b R(x, y) log pi(y|x), R = r(x, y) - beta log(pi/pi_dpo)(y|x).

    r(x, y) = beta0 log(pi_dpo/pi_anchor)(y|x), summed over the response; R has no gradient and is
    the same for every token. Source: arXiv:2503.02832 Eq. 42. Deviation: as printed (`kl_mode:
    literal`) the KL has gradient beta grad log pi(y|x), whose expectation is zero, so it constrains
    nothing; by default it is paid from the reward instead.
    """

    name = "bandit"
    batch = RolloutBatch
    assumes_policy_samples = True
    single_update = True
    roles = {
        "policy": Role(trainable=True, doc="the model that learns"),
        "teacher": Role(doc="the DPO model pi_dpo"),
        "anchor": Role(doc="the reverse DPO model"),
    }
    metrics = {
        "reward/token_avg": Metric("beta0 log(pi_dpo/pi_anchor)(y_t), mean over tokens", "nats"),
        "reward/seq": Metric("the same, sum over a response: r(x, y)", "nats"),
        "kl_k1/teacher_seq": Metric("log(pi/pi_dpo)(y|x) of the sampled response", "nats"),
        "kl_full/teacher_seq": Metric(
            "full KL(policy || pi_dpo), sum over a response", "nats", 0.0
        ),
        "kl_full/teacher_token": Metric("the same, mean over a response's tokens", "nats", 0.0),
    }

    beta: float = option(0.08, "strength of the KL constraint to the DPO model", ge=0)
    beta0: float = option(0.1, "beta the DPO models were trained with", gt=0)
    kl_mode: Literal["in_reward", "literal", "exact_token_kl"] = option(
        "in_reward", "KL paid from the reward, Eq. 42 as printed, or the full KL of Eq. 43"
    )

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities of the sampled token under every role, and the full KL."""
        rows = {role: ops.log_prob(role) for role in self.roles}
        kl = ops.kl("policy", "teacher")
        return {**rows, "kl": kl if self.kl_mode == "exact_token_kl" else ops.watched(kl)}

    def loss(self, batch: RolloutBatch, signals: Signals, state: State) -> Loss:
        """A policy term and a KL term (0 when the reward pays), each one value per sequence."""
        mask = batch.mask
        token_reward = self.beta0 * (signals["teacher"] - signals["anchor"])
        reward = ops.sequence_sum(token_reward, mask)  # [B]
        log_ratio = signals["policy"] - signals["teacher"]
        inside, outside = KL_MODES[self.kl_mode](log_ratio, signals["kl"])
        total = (reward - self.beta * ops.sequence_sum(inside, mask)).detach()
        terms = {
            "policy": Term(-total * ops.sequence_mean(signals["policy"], mask)),
            "kl": Term(ops.sequence_mean(outside, mask), scale=self.beta),
        }
        full = signals["kl"].detach()
        metrics = {
            "reward/token_avg": Mean(ops.sequence_mean(token_reward, mask)),
            "reward/seq": Mean(reward),
            "kl_k1/teacher_seq": Mean(ops.sequence_sum(log_ratio.detach(), mask)),
            "kl_full/teacher_token": Mean(ops.sequence_mean(full, mask)),
            "kl_full/teacher_seq": Mean(ops.sequence_sum(full, mask)),
        }
        return Loss(terms, metrics)
