"""REINFORCE with a leave-one-out baseline, arXiv:2402.14740."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
from alignzoo.ops import REDUCTIONS, leave_one_out, log_prob, sequence_mean, sequence_sum


@dataclass(frozen=True)
class RLOO(Algorithm[RolloutBatch]):
    """L = -mean_b A_b log pi(y_b|x), A_b = R_b - mean of R over the other answers to the prompt.

    R = reward - kl_coef log(pi_old/pi_ref)(y|x), a response is one action. Source:
    arXiv:2402.14740 Section 2.3. There is no importance ratio: a buffer serves one update.
    """

    name = "rloo"
    batch = RolloutBatch
    assumes_policy_samples = True
    single_update = True
    least_samples = 2
    roles = {
        "policy": Role(trainable=True, doc="the model that learns"),
        "reference": Role(like="policy", doc="frozen; by default the policy's start"),
    }
    metrics = {
        "kl_k1/token": Metric("log pi_old - log pi_ref of sampled tokens, mean", "nats"),
        "advantage/size": Metric("|A_b|, mean over responses; 0: equal answers teach nothing"),
        "reward/seq": Metric("reward of the response before the KL"),
    }

    kl_coef: float = option(0.05, "weight of the KL in the reward", ge=0)
    reduction: Literal["sequence_sum", "sequence_mean"] = option(
        "sequence_sum", "log pi(y|x), or its mean per token"
    )

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities that are trained."""
        return {"policy": log_prob("policy")}

    def snapshots(self) -> Mapping[str, Signal]:
        """The same before the update, and the reference."""
        return {"old": log_prob("policy"), "reference": log_prob("reference")}

    def prepare(self, batch: RolloutBatch, signals: Signals, world: World) -> Signals:
        """[B] advantages within each group; a group is on one rank."""
        log_ratio = sequence_sum(signals["old"] - signals["reference"], batch.mask)
        total = batch.reward.to(log_ratio) - self.kl_coef * log_ratio
        return {"advantage": leave_one_out(total, batch.group)}

    def loss(self, batch: RolloutBatch, signals: Signals, state: State) -> Loss:
        """One value per sequence."""
        mask, advantage = batch.mask, signals["advantage"]
        term = REDUCTIONS[self.reduction](-advantage[:, None] * signals["policy"], mask)
        metrics = {
            "kl_k1/token": Mean(sequence_mean(signals["old"] - signals["reference"], mask)),
            "advantage/size": Mean(advantage.abs()),
            "reward/seq": Mean(batch.reward),
        }
        return Loss(term, metrics)
