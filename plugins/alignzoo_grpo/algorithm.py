"""Group-relative policy optimisation, arXiv:2402.03300."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from alignzoo import Loss, Mean, Metric, Role, RolloutBatch, Signal, Signals, State, ops, option
from alignzoo_grpo.group import SMALLEST_DEVIATION, GroupRelative


@dataclass(frozen=True)
class GRPO(GroupRelative):
    """L = mean_b 1/n_b sum_t [-min(rho A, clip(rho, 1-c, 1+c) A) + kl_coef k3].

    A_b = (R_b - mean R) / (std R + 1e-4) over the answers to one prompt, the same for every token;
    rho = exp(log pi - log pi_old); k3 = exp(-d) - 1 + d, d = log pi - log pi_ref. No critic.
    Source: arXiv:2402.03300 Eq. 3-4. Dr. GRPO (arXiv:2503.20783) is `scale: false`, without the
    division, and `reduction: sequence_sum`: mean_b 1/C sum_t, C the same for every answer.
    """

    name = "grpo"
    roles = {
        "policy": Role(trainable=True, doc="the model that learns"),
        "reference": Role(like="policy", doc="frozen; by default the policy's start"),
    }
    metrics = {
        "kl_k3/token": Metric("k3 of sampled tokens, mean per response", "nats", low=0.0),
        **GroupRelative.metrics,
    }

    clip: float = option(0.2, "c: clip range of the ratio", gt=0)
    kl_coef: float = option(0.04, "weight of the KL to the reference", ge=0)
    scale: bool = option(True, "divide by the standard deviation of the group's rewards")
    reduction: Literal["sequence_mean", "sequence_sum", "token_mean"] = option(
        "sequence_mean",
        "1/n_b sum_t, or 1/C sum_t, then the mean of responses; or all tokens alike",
    )
    constant: float = option(
        1.0, "C of reduction: sequence_sum, such as max_new_tokens; 1: the plain sum", gt=0
    )

    def __post_init__(self) -> None:
        """The constant belongs to the sum."""
        if self.constant != 1 and self.reduction != "sequence_sum":
            raise ValueError("constant divides a sum over tokens: set reduction: sequence_sum")

    def snapshots(self) -> Mapping[str, Signal]:
        """The same before the first update on the buffer, and the reference."""
        return {"old": ops.log_prob("policy"), "reference": ops.log_prob("reference")}

    def advantages(self, reward: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """[B] A_b from the rewards [B]."""
        return ops.group_advantage(reward, group, SMALLEST_DEVIATION if self.scale else None)

    def loss(self, batch: RolloutBatch, signals: Signals, state: State) -> Loss:
        """A policy term and a KL term."""
        mask = batch.mask
        kl = ops.kl_k3(signals["policy"] - signals["reference"])  # [B, S]
        policy = ops.clipped_policy_term(signals, mask, self.clip, self.reduction)
        penalty = ops.REDUCTIONS[self.reduction](kl, mask)
        terms = {
            "policy": replace(policy, scale=1 / self.constant),
            "kl": replace(penalty, scale=self.kl_coef / self.constant),
        }
        moved = signals["policy"].detach() - signals["old"]
        binds = ops.clip_binds(moved, signals["advantage"], self.clip)
        seen = {"kl_k3/token": Mean(ops.sequence_mean(kl.detach(), mask))}
        return Loss(terms, seen | self.logged(batch, signals, binds))
