"""What GRPO and its relatives share: rewards compared within the answers to one prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alignzoo import Algorithm, Mean, Metric, Role, RolloutBatch, Signal, Signals, World, ops

SMALLEST_DEVIATION = 1e-4  # added to the group's standard deviation, in units of the reward


@dataclass(frozen=True)
class GroupRelative(Algorithm[RolloutBatch]):
    """A_b = (R_b - mean R) / (std R + 1e-4) for every token of an answer; rho = pi / pi_old."""

    batch = RolloutBatch
    assumes_policy_samples = True
    least_samples = 2
    roles = {"policy": Role(trainable=True, doc="the model that learns; there is no reference")}
    metrics = {
        "clip_fraction": Metric(
            "share of tokens without gradient: clipping binds", low=0.0, high=0.3
        ),
        "advantage/size": Metric("|A_b|, mean over responses; 0: equal answers teach nothing"),
        "reward/seq": Metric("reward of the response"),
    }

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities that are trained."""
        return {"policy": ops.log_prob("policy")}

    def snapshots(self) -> Mapping[str, Signal]:
        """The same before the first update on the buffer."""
        return {"old": ops.log_prob("policy")}

    def advantages(self, reward: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """[B] A_b from the rewards [B]."""
        return ops.group_advantage(reward, group, SMALLEST_DEVIATION)

    def prepare(self, batch: RolloutBatch, signals: Signals, world: World) -> Signals:
        """[B, S] advantages; a group is on one rank."""
        advantage = self.advantages(batch.reward.to(signals["old"]), batch.group)
        return {"advantage": advantage[:, None] * batch.mask}

    def logged(self, batch: RolloutBatch, signals: Signals, binds: torch.Tensor) -> dict[str, Mean]:
        """Metrics of all relatives; binds [B, S] is 1 where clipping binds."""
        mask = batch.mask
        return {
            "clip_fraction": Mean(binds, mask),
            "advantage/size": Mean(ops.sequence_mean(signals["advantage"].abs(), mask)),
            "reward/seq": Mean(batch.reward),
        }
