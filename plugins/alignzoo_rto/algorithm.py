"""Reinforced token optimisation, arXiv:2404.18922."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
    World,
    ops,
    option,
)


@dataclass(frozen=True)
class RTO(Algorithm[RolloutBatch]):
    """r_t = beta1 log(pi_dpo/pi_ref)(y_t) - beta2 log(pi_old/pi_ref)(y_t), for every token.

    These rewards replace the one at the end of the response; the rest is clipped policy gradient
    with a critic: L = -min(rho A, clip(rho, 1-c, 1+c) A) + 1/2 max((V_clip - G)^2, (V - G)^2), A
    from GAE, whitened over the buffer, G = A + V before. No reward model: a reward of the rollout
    is ignored. Source: arXiv:2404.18922, second version, as the AlignDistil paper ran it.
    """

    name = "rto"
    batch = RolloutBatch
    assumes_policy_samples = True
    roles = {
        "policy": Role(trainable=True, doc="the actor"),
        "teacher": Role(doc="the DPO model pi_dpo"),
        "reference": Role(like="policy", doc="the reference pi_dpo was trained against"),
        "critic": Role(trainable=True, head="scalar", like="policy", doc="V(s_t)"),
    }
    metrics = {
        "reward/dpo_seq": Metric("beta1 log(pi_dpo/pi_ref)(y_t), clipped, sum over a response"),
        "reward/seq": Metric("r_t, sum over a response"),
        "kl_k1/token": Metric("log pi_old - log pi_ref of sampled tokens, mean", "nats"),
        "clip_fraction": Metric("share of tokens where the ratio is clipped", "", 0.0, 0.3),
        "values/mean": Metric("critic's value, mean over tokens"),
        "return": Metric("G, mean over tokens"),
    }

    beta1: float = option(0.1, "weight of the DPO model's log-ratio", gt=0)
    beta2: float = option(0.05, "weight of the KL to the reference", ge=0)
    token_clip: float | None = option(
        10.0, "clips beta1 log(pi_dpo/pi_ref) to +- this; null: no clipping", gt=0
    )
    gamma: float = option(1.0, "discount", gt=0, le=1)
    lam: float = option(0.95, "GAE lambda", ge=0, le=1)
    clip: float = option(0.2, "clip range of the ratio", gt=0)
    value_clip: float | None = option(0.2, "clip range of the value; null: no clipping", gt=0)
    value_coef: float = option(1.0, "weight of the value loss", gt=0)
    whiten_advantages: bool = option(True, "zero mean, unit variance over the buffer")
    reduction: Literal["sequence_mean", "token_mean"] = option(
        "sequence_mean", "mean over tokens per sequence first, or over all tokens alike"
    )

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities and values that are trained."""
        return {"policy": ops.log_prob("policy"), "value": ops.value("critic")}

    def snapshots(self) -> Mapping[str, Signal]:
        """The same before the first update on the buffer, the DPO model and the reference."""
        frozen = {role: ops.log_prob(role) for role in ("teacher", "reference")}
        return {**frozen, "old": ops.log_prob("policy"), "old_value": ops.value("critic")}

    def dpo_rewards(self, signals: Signals) -> torch.Tensor:
        """[B, S] beta1 log(pi_dpo/pi_ref)(y_t), clipped."""
        reward = self.beta1 * (signals["teacher"] - signals["reference"])
        limit = self.token_clip
        return reward if limit is None else reward.clamp(-limit, limit)

    def token_rewards(self, batch: RolloutBatch, signals: Signals) -> torch.Tensor:
        """[B, S] r_t, 0 outside the response."""
        kl = signals["old"] - signals["reference"]
        return (self.dpo_rewards(signals) - self.beta2 * kl) * batch.mask

    def prepare(self, batch: RolloutBatch, signals: Signals, world: World) -> Signals:
        """Advantages and returns of the whole buffer."""
        mask, values = batch.mask, signals["old_value"]
        rewards = self.token_rewards(batch, signals)
        raw = ops.generalised_advantage(rewards, values, mask, self.gamma, self.lam)
        advantage = ops.whiten(raw, mask, world) if self.whiten_advantages else raw
        return {"advantage": advantage, "return": (raw + values) * mask}

    def loss(self, batch: RolloutBatch, signals: Signals, state: State) -> Loss:
        """A policy term and a value term."""
        mask, how = batch.mask, self.reduction
        policy = ops.clipped_policy_term(signals, mask, self.clip, how)
        value = ops.clipped_value_term(signals, mask, self.value_clip, self.value_coef, how)
        kl = signals["old"] - signals["reference"]
        metrics = {
            **ops.actor_critic_metrics(signals, mask, self.clip),
            "kl_k1/token": Mean(ops.sequence_mean(kl, mask)),
            "reward/dpo_seq": Mean(ops.sequence_sum(self.dpo_rewards(signals), mask)),
            "reward/seq": Mean(ops.sequence_sum(self.token_rewards(batch, signals), mask)),
        }
        return Loss({"policy": policy, "value": value}, metrics)


@dataclass(frozen=True)
class RTOv3(RTO):
    """r_t = clip(beta1 log(pi_dpo/pi_ref)(y_t), -c1, c1) - beta2 log(pi_old/pi_ref)(y_t), last + R.

    The DPO model only shapes the reward R of the whole response, which is clipped and comes on the
    last token. Source: arXiv:2404.18922, third version, and its authors' code; the rest is as in
    the second version. Deviation: R is not normalised here, a reward model may do that.
    """

    name = "rto_v3"

    beta1: float = option(0.05, "weight of the DPO model's log-ratio", gt=0)
    beta2: float = option(0.01, "weight of the KL to the reference", ge=0)
    token_clip: float | None = option(
        0.05, "c1: clips beta1 log(pi_dpo/pi_ref) to +- this; null: no clipping", gt=0
    )
    reward_clip: float | None = option(10.0, "clips R to +- this; null: no clipping", gt=0)

    def token_rewards(self, batch: RolloutBatch, signals: Signals) -> torch.Tensor:
        """[B, S] r_t, 0 outside the response."""
        shaping = super().token_rewards(batch, signals)
        reward, limit = batch.reward.to(shaping), self.reward_clip
        if limit is not None:
            reward = reward.clamp(-limit, limit)
        return shaping + ops.spread_on_last(reward, batch.mask)
