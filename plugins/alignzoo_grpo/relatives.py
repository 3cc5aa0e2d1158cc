"""Dr. GRPO, GSPO and CISPO: GRPO with another mean, another ratio, another clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alignzoo import Loss, Metric, RolloutBatch, Signals, State, Term, ops, option
from alignzoo_grpo.group import GroupRelative


@dataclass(frozen=True)
class DrGRPO(GroupRelative):
    """L = mean_b 1/C sum_t -min(rho A, clip(rho, 1-c, 1+c) A).

    A_b = R_b - mean R over the answers to one prompt, without the deviation, and C the same for
    every answer, so neither length nor spread of a group changes its weight. Source:
    arXiv:2503.20783. There is no KL; with one it is `grpo` with scale: false and
    reduction: sequence_sum.
    """

    name = "dr_grpo"

    clip: float = option(0.2, "c: clip range of the ratio", gt=0)
    constant: float = option(1.0, "C, such as max_new_tokens; 1: the plain sum", gt=0)

    def advantages(self, reward: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """[B] R_b - mean R."""
        return ops.group_advantage(reward, group)

    def loss(self, batch: RolloutBatch, signals: Signals, state: State) -> Loss:
        """One value per answer."""
        log_ratio = signals["policy"] - signals["old"]  # [B, S]
        each = ops.clipped_policy_loss(log_ratio, signals["advantage"], self.clip)
        binds = ops.clip_binds(log_ratio.detach(), signals["advantage"], self.clip)
        term = Term(ops.sequence_sum(each, batch.mask) / self.constant)
        return Loss(term, self.logged(batch, signals, binds))


@dataclass(frozen=True)
class GSPO(GroupRelative):
    """L = mean_b -min(s A, clip(s, 1-c_low, 1+c_high) A), s = exp(1/n_b sum_t log rho_t).

    The ratio of a whole answer, its n_b-th root taken, in place of one ratio per token; A as in
    GRPO. Source: arXiv:2507.18071. There is no KL.
    """

    name = "gspo"
    metrics = GroupRelative.metrics | {
        "clip_fraction": Metric("share of tokens in answers whose ratio is clipped", low=0.0)
    }

    clip_low: float = option(3e-4, "c_low: how far below 1 the ratio may go", gt=0, le=1)
    clip_high: float = option(4e-4, "c_high: how far above 1 the ratio may go", gt=0)

    def loss(self, batch: RolloutBatch, signals: Signals, state: State) -> Loss:
        """One value per answer."""
        log_ratio = ops.sequence_mean(signals["policy"] - signals["old"], batch.mask)  # [B]
        advantage = ops.sequence_mean(signals["advantage"], batch.mask)  # [B]
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - self.clip_low, 1 + self.clip_high) * advantage
        binds = (clipped < ratio * advantage).to(ratio)[:, None] * batch.mask
        term = Term(-torch.min(ratio * advantage, clipped))
        return Loss(term, self.logged(batch, signals, binds))


@dataclass(frozen=True)
class CISPO(GroupRelative):
    """L = -mean_t sg[clip(rho, floor, cap)] A log pi, over all tokens of the batch.

    sg: no gradient. The weight of a token is clipped, never the token: all of them keep a
    gradient. A as in GRPO. Source: arXiv:2506.13585, with floor = 1 - e_low and cap = 1 + e_high;
    there is no KL. Deviation: the mean is over the tokens of the optimiser batch, the paper's over
    those of the answers to one prompt.
    """

    name = "cispo"
    metrics = GroupRelative.metrics | {
        "clip_fraction": Metric("share of tokens whose weight is clipped", low=0.0, high=0.3)
    }

    cap: float = option(5.0, "largest weight of a token", gt=1)
    floor: float = option(0.0, "smallest weight of a token; 0: none, as in the paper", ge=0, le=1)

    def loss(self, batch: RolloutBatch, signals: Signals, state: State) -> Loss:
        """One value per token."""
        ratio = (signals["policy"].detach() - signals["old"]).exp()  # [B, S]
        weight = ratio.clamp(self.floor, self.cap)
        term = ops.token_mean_term(-weight * signals["advantage"] * signals["policy"], batch.mask)
        return Loss(term, self.logged(batch, signals, (weight != ratio).to(ratio)))
