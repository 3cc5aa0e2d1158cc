"""Proximal policy optimisation for RLHF, arXiv:1707.06347 and arXiv:2203.02155."""

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
    option,
)
from alignzoo.ops import (
    KL_ESTIMATORS,
    actor_critic_metrics,
    clipped_policy_term,
    clipped_value_term,
    generalised_advantage,
    log_prob,
    sequence_mean,
    spread_on_last,
    value,
    whiten,
)


@dataclass(frozen=True)
class PPO(Algorithm[RolloutBatch]):
    """L = -min(rho A, clip(rho, 1-c, 1+c) A) + 1/2 max((V_clip - G)^2, (V - G)^2).

    rho = exp(log pi - log pi_old), r_t = -kl_coef kl_t (+ R on the last token), A from GAE and
    whitened over the whole buffer, G = A + V before whitening. Per-sequence mean over tokens, then
    mean over sequences. Source: arXiv:1707.06347 Eq. 7, arXiv:1506.02438; as the AlignDistil paper
    ran it. The KL is part of the reward and is that of the policy that sampled.
    """

    name = "ppo"
    batch = RolloutBatch
    assumes_policy_samples = True
    roles = {
        "policy": Role(trainable=True, doc="the actor"),
        "reference": Role(like="policy", doc="frozen; by default the policy's start"),
        "critic": Role(trainable=True, head="scalar", like="policy", doc="V(s_t)"),
    }
    metrics = {
        "kl_k1/token": Metric("log pi_old - log pi_ref of sampled tokens, mean", "nats"),
        "clip_fraction": Metric(
            "share of tokens without gradient: clipping binds", low=0.0, high=0.3
        ),
        "values/mean": Metric("critic's value, mean over tokens"),
        "return": Metric("G, mean over tokens"),
        "reward/seq": Metric("reward of the response before clipping"),
    }

    kl_coef: float = option(0.01, "c: weight of the KL in the token reward", ge=0)
    kl_estimator: Literal["k1", "k3"] = option("k1", "k1 = d; k3 = exp(-d) - 1 + d")
    gamma: float = option(1.0, "discount", gt=0, le=1)
    lam: float = option(0.95, "GAE lambda", ge=0, le=1)
    clip: float = option(0.2, "clip range of the ratio", gt=0)
    value_clip: float | None = option(0.2, "clip range of the value; null: no clipping", gt=0)
    value_coef: float = option(1.0, "weight of the value loss", gt=0)
    reward_clip: float | None = option(10.0, "clip the reward to +- this; null: no clipping", gt=0)
    whiten_advantages: bool = option(True, "zero mean, unit variance over the buffer")
    reduction: Literal["sequence_mean", "token_mean"] = option(
        "sequence_mean", "mean over tokens per sequence first, or over all tokens alike"
    )

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities and values that are trained."""
        return {"policy": log_prob("policy"), "value": value("critic")}

    def snapshots(self) -> Mapping[str, Signal]:
        """The same before the first update on the buffer, and the reference."""
        return {
            "old": log_prob("policy"),
            "reference": log_prob("reference"),
            "old_value": value("critic"),
        }

    def at_start(self) -> Mapping[str, float]:
        """The first update is on the sampling policy, which is still the reference."""
        return {"clip_fraction": 0.0, "kl_k1/token": 0.0}

    def token_rewards(self, batch: RolloutBatch, signals: Signals) -> torch.Tensor:
        """[B, S] r_t = -kl_coef kl_t, plus the clipped reward on the last token."""
        kl = KL_ESTIMATORS[self.kl_estimator](signals["old"] - signals["reference"])
        reward = batch.reward.to(kl)
        if self.reward_clip is not None:
            reward = reward.clamp(-self.reward_clip, self.reward_clip)
        return -self.kl_coef * kl * batch.mask + spread_on_last(reward, batch.mask)

    def prepare(self, batch: RolloutBatch, signals: Signals, world: World) -> Signals:
        """Advantages and returns of the whole buffer."""
        rewards, values = self.token_rewards(batch, signals), signals["old_value"]
        advantage = generalised_advantage(rewards, values, batch.mask, self.gamma, self.lam)
        returns = (advantage + values) * batch.mask
        if self.whiten_advantages:
            advantage = whiten(advantage, batch.mask, world)
        return {"advantage": advantage, "return": returns}

    def loss(self, batch: RolloutBatch, signals: Signals, state: State) -> Loss:
        """A policy term and a value term."""
        mask = batch.mask
        kl = sequence_mean(signals["old"] - signals["reference"], mask)
        terms = {
            "policy": clipped_policy_term(signals, mask, self.clip, self.reduction),
            "value": clipped_value_term(
                signals, mask, self.value_clip, self.value_coef, self.reduction
            ),
        }
        shared = actor_critic_metrics(signals, mask, self.clip)
        return Loss(terms, {**shared, "kl_k1/token": Mean(kl), "reward/seq": Mean(batch.reward)})
