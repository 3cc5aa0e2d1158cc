"""Token-level REINFORCE on the contrastive DPO reward, arXiv:2503.02832 Eq. 43."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    option,
)
from alignzoo.ops import kl, log_prob, reward_to_go, sequence_mean, sequence_sum


@dataclass(frozen=True)
class Reinforce(Algorithm[RolloutBatch]):
    """L = mean_b 1/n_b sum_t [-G_t log pi(y_t|s_t) + beta KL(pi(.|s_t) || pi_dpo(.|s_t))].

    G_t = sum_{i>=t} gamma^(i-t) beta0 log(pi_dpo/pi_anchor)(y_i), without gradient; the KL is over
    the full vocabulary and differentiated itself, not paid from G. Source: arXiv:2503.02832
    Eq. 43 (gamma = 1, no baseline). The expectation of the first term over y_t is what AlignDistil
    computes exactly.
    """

    name = "reinforce"
    batch = RolloutBatch
    assumes_policy_samples = True
    single_update = True
    roles = {
        "policy": Role(trainable=True, doc="the model that learns"),
        "teacher": Role(doc="the DPO model pi_dpo"),
        "anchor": Role(doc="the reverse DPO model"),
    }
    metrics = {
        "return": Metric("G_t before the baseline, mean over tokens", "nats"),
        "kl_full/teacher_seq": Metric(
            "full KL(policy || pi_dpo), sum over a response", "nats", 0.0
        ),
        "kl_full/teacher_token": Metric("the same, mean over a response's tokens", "nats", 0.0),
        "reward/token_avg": Metric("beta0 log(pi_dpo/pi_anchor)(y_t), mean over tokens", "nats"),
        "reward/seq": Metric("the same, sum over a response", "nats"),
    }

    beta: float = option(0.08, "strength of the KL constraint to the DPO model", ge=0)
    beta0: float = option(0.1, "beta the DPO models were trained with", gt=0)
    gamma: float = option(1.0, "discount", gt=0, le=1)
    baseline: float | None = option(
        None, "decay of a moving average of G that is subtracted from G; null: none", ge=0, le=1
    )

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities of the sampled token under every role, and the KL."""
        rows = {role: log_prob(role) for role in self.roles}
        return {**rows, "kl": kl("policy", "teacher")}

    def token_rewards(self, signals: Signals) -> torch.Tensor:
        """[B, S] r_t = beta0 log(pi_dpo/pi_anchor)(y_t)."""
        return self.beta0 * (signals["teacher"] - signals["anchor"]).detach()

    def loss(self, batch: RolloutBatch, signals: Signals, state: State) -> Loss:
        """A policy term and a KL term, each one value per sequence."""
        mask, reward = batch.mask, self.token_rewards(signals)
        returns = reward_to_go(reward, mask, self.gamma)  # [B, S]
        score = (returns - state["baseline"]) * signals["policy"]
        terms = {
            "policy": Term(-sequence_mean(score, mask)),
            "kl": Term(sequence_mean(signals["kl"], mask), scale=self.beta),
        }
        distance = signals["kl"].detach()
        metrics = {
            "return": Mean(returns, mask),
            "kl_full/teacher_seq": Mean(sequence_sum(distance, mask)),
            "kl_full/teacher_token": Mean(sequence_mean(distance, mask)),
            "reward/token_avg": Mean(sequence_mean(reward, mask)),
            "reward/seq": Mean(sequence_sum(reward, mask)),
        }
        return Loss(terms, metrics)

    def init_state(self) -> State:
        """The baseline starts at 0, and stays there without the option."""
        return {"baseline": torch.zeros(())}

    def next_state(self, state: State, metrics: Mapping[str, float]) -> State:
        """The moving average of the mean return."""
        if self.baseline is None:
            return state
        return {
            "baseline": state["baseline"].lerp(torch.tensor(metrics["return"]), 1 - self.baseline)
        }
