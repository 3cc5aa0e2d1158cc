"""A fixed negative advantage on improbable tokens, without a teacher, arXiv:2608.31046."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    ops,
    option,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NegativeAdvantage(Algorithm[RolloutBatch]):
    """L = mean_b 1/n_b sum_t -E_pi sg[A], A = -advantage where pi(v) < below, else 0.

    The policy gradient of an advantage that knows no teacher and no reward: what the policy itself
    holds improbable is suppressed. sg: no gradient; the expectation is over the vocabulary, so L is
    `advantage` times the mass of improbable tokens, with those tokens held fixed. Source: the claim
    of arXiv:2608.31046 that on-policy distillation does no more than a single fixed negative
    advantage on low log-probability tokens; known here from its abstract alone, which states
    neither threshold nor advantage. Deviations: both are options of ours; the expectation is exact
    where a policy gradient takes the sampled token; the paper's own method, whose advantage follows
    the entropy, is not here. Adam divides `advantage` out: it matters where gradients are clipped
    or terms are added.
    """

    name = "negative_advantage"
    batch = RolloutBatch
    assumes_policy_samples = True
    roles = {"policy": Role(trainable=True, doc="the model that suppresses what it rarely says")}
    metrics = {
        "improbable/mass": Metric("probability of all improbable tokens, per token", "", 0.0, 1.0),
        "improbable/sampled": Metric("share of sampled tokens that are improbable", "", 0.0, 1.0),
        "improbable/entropy": Metric("entropy of the policy, per token", "nats", 0.0),
    }

    advantage: float = option(1.0, "what an improbable token loses", gt=0)
    below: float = option(0.1, "probability under which a token is improbable", gt=0, le=1)

    def signals(self) -> Mapping[str, Signal]:
        """Everything is read in one pass over the policy's logits."""
        return {"policy": Signal(("policy",), self.rows, closed=self.closed)}

    def rows(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """[n] rows: the mass of improbable tokens with gradient, and what the metrics need."""
        policy = ops.log_softmax(outputs["policy"])
        improbable = policy.detach() < math.log(self.below)
        return {
            "mass": ops.expectation(policy, improbable.to(policy)),
            "sampled": improbable.gather(-1, labels[:, None]).squeeze(-1).to(policy),
            "entropy": ops.entropy_of(policy.detach()),
        }

    def closed(
        self, outputs: Outputs, labels: Tensor, scratch: Scratch, wanted: Collection[str]
    ) -> tuple[dict[str, Tensor], Outputs]:
        """The same rows and the gradient of the first, a few positions at a time."""
        p, log_p = scratch.probs("policy"), scratch.log_probs("policy")
        improbable = log_p < math.log(self.below)
        products = scratch.empty("product", p)
        entropy = -ops.expected(p, log_p, products)
        mass = ops.expected(p, improbable.to(p), products)
        sampled = improbable.gather(-1, labels[:, None]).squeeze(-1).to(p)
        rows = {"mass": mass, "sampled": sampled, "entropy": entropy}
        if "policy" not in wanted:
            return rows, {}
        place = scratch.gradient("policy")
        return rows, {"policy": ops.expected_gradient(p, products, mass, place)}

    def loss(self, batch: RolloutBatch, signals: Signals, state: State) -> Loss:
        """One value per sequence."""
        mask, mass = batch.mask, signals["policy/mass"]
        metrics = {
            "improbable/mass": Mean(ops.sequence_mean(mass.detach(), mask)),
            "improbable/sampled": Mean(ops.sequence_mean(signals["policy/sampled"], mask)),
            "improbable/entropy": Mean(ops.sequence_mean(signals["policy/entropy"], mask)),
        }
        return Loss(ops.sequence_mean_term(self.advantage * mass, mask), metrics)
