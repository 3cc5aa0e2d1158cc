"""Kahneman-Tversky optimisation, arXiv:2402.01306."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from alignzoo import (
    Algorithm,
    Batch,
    DataError,
    LabelledBatch,
    Loss,
    Mean,
    Metric,
    Role,
    Signal,
    Signals,
    State,
    Term,
    World,
    option,
)
from alignzoo.ops import log_prob, sequence_sum


def _matched(batch: Batch) -> torch.Tensor:
    """[B, S] bool: the response of the first half of the rows, (x_i, y_i)."""
    row = torch.arange(batch.ids.shape[0], device=batch.ids.device)
    return batch.mask & (row < batch.n_items)[:, None]


@dataclass(frozen=True)
class KTO(Algorithm[LabelledBatch]):
    """L = w (1 - sigmoid(s beta (D - z0))), mean over examples.

    D = [S_pi - S_ref](y), S the sum of log-probabilities of the response; s = 1 and w = w_D if y is
    desirable, else s = -1 and w = w_U. z0 = max(0, mean_i [S_pi - S_ref](y_j | x_i)), y_j an answer
    to another prompt than x_i: an estimate of KL(pi || ref) over the whole optimiser batch, clamped
    after averaging, without gradient. Source: arXiv:2402.01306.
    """

    name = "kto"
    batch = LabelledBatch
    least_items = 2
    roles = {
        "policy": Role(trainable=True, doc="the model that learns"),
        "reference": Role(like="policy", doc="frozen; by default the policy's start"),
    }
    metrics = {
        "rewards/desirable": Metric("beta D of desirable examples", "nats"),
        "rewards/undesirable": Metric("beta D of undesirable examples", "nats"),
        "kl_k1/mismatched": Metric("z0, from answers to other prompts, clamped at 0", "nats", 0.0),
    }

    beta: float = option(0.1, "strength of the KL constraint", gt=0)
    desirable_weight: float = option(1.0, "w_D, weight of a desirable example", gt=0)
    undesirable_weight: float = option(1.0, "w_U, weight of an undesirable example", gt=0)

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities that are trained: mismatched rows have no gradient."""
        return {"policy": replace(log_prob("policy"), positions=_matched)}

    def snapshots(self) -> Mapping[str, Signal]:
        """The policy as it is before the step, and the reference, on all rows."""
        return {"start": log_prob("policy"), "reference": log_prob("reference")}

    def at_start(self) -> Mapping[str, float]:
        """Equal policy and reference: every answer is worth 0, the mismatched ones too."""
        return {name: 0.0 for name in self.metrics}

    def prepare(self, batch: LabelledBatch, signals: Signals, world: World) -> Signals:
        """z0, the same for every item [I]."""
        ratio = sequence_sum(signals["start"] - signals["reference"], batch.mask)  # [B]
        one = torch.ones_like(ratio[batch.mismatched])  # [I]
        if world.sum(one.sum()) < 2:
            raise DataError(
                "kto: z0 is a mean over a batch, and this one holds a single example; "
                "set train.batch_size to 2 or more"
            )
        z0 = world.mean(ratio[batch.mismatched], one.bool()).clamp(min=0)
        return {"z0": z0 * one}

    def loss(self, batch: LabelledBatch, signals: Signals, state: State) -> Loss:
        """One value per example."""
        ratio = sequence_sum(signals["policy"] - signals["reference"], batch.mask)  # [B]
        d, z0 = ratio[batch.matched], signals["z0"]  # [I]
        good = batch.desirable.to(d)
        sign = 2 * good - 1
        weight = torch.where(good > 0, self.desirable_weight, self.undesirable_weight)
        value = weight * torch.sigmoid(-sign * self.beta * (d - z0))
        reward = self.beta * d.detach()
        logged = {
            "rewards/desirable": Mean(reward, good),
            "rewards/undesirable": Mean(reward, 1 - good),
            "kl_k1/mismatched": Mean(z0),
        }
        return Loss(Term(value), logged)
