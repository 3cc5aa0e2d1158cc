"""beta-DPO as a package from outside: DPO whose beta follows the quality of the batch."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alignzoo import (
    Algorithm,
    Loss,
    Mean,
    Metric,
    PairBatch,
    Role,
    Signal,
    Signals,
    State,
    Term,
    World,
    hookimpl,
    option,
)
from alignzoo.ops import implicit_reward, log_prob, log_sigmoid, pair_metrics, sequence_sum


@dataclass(frozen=True)
class BetaDPO(Algorithm[PairBatch]):
    """L = -log sigmoid(beta D), beta = beta0 (1 + alpha (M - M0)), mean over pairs.

    D as in DPO; M = mean of D over the batch, before the step and without gradient; M0 its
    moving average over the steps before. Source: https://github.com/junkangwu/beta-DPO.
    Deviation: its filter, which leaves pairs far from M0 out of a batch, is not here.
    """

    name = "beta_dpo"
    roles = {"policy": Role(trainable=True), "reference": Role(like="policy")}
    metrics = {
        "rewards/chosen": Metric("beta0 log(pi/ref) of the chosen answer", "nats"),
        "rewards/rejected": Metric("the same of the rejected answer", "nats"),
        "rewards/margin": Metric("chosen minus rejected", "nats"),
        "rewards/accuracy": Metric("share of pairs with chosen > rejected"),
        "beta": Metric("beta of the batch", low=0.0),
    }
    beta0: float = option(0.1, "beta of a batch as good as those before", gt=0)
    alpha: float = option(0.6, "how far beta follows the batch", ge=0)
    momentum: float = option(0.9, "weight of the steps before in M0", ge=0, le=1)

    def signals(self) -> Mapping[str, Signal]:
        return {"policy": log_prob("policy")}

    def snapshots(self) -> Mapping[str, Signal]:
        return {"start": log_prob("policy"), "reference": log_prob("reference")}

    def prepare(self, batch: PairBatch, signals: Signals, world: World) -> Signals:
        ratio = sequence_sum(signals["start"] - signals["reference"], batch.mask)
        margin = ratio[batch.chosen] - ratio[batch.rejected]
        m = world.mean(margin, torch.ones_like(margin, dtype=torch.bool))
        beta = self.beta0 * (1 + self.alpha * (m - world.state["m0"].to(m)))
        return {"beta": beta.clamp(min=1e-3 * self.beta0).expand_as(margin).clone()}

    def init_state(self) -> State:
        return {"m0": torch.zeros(())}

    def next_state(self, state: State, metrics: Mapping[str, float]) -> State:
        m = metrics["rewards/margin"] / self.beta0
        return {"m0": self.momentum * state["m0"] + (1 - self.momentum) * m}

    def loss(self, batch: PairBatch, signals: Signals, state: State) -> Loss:
        reward = implicit_reward(self.beta0, signals["policy"], signals["reference"], batch.mask)
        margin = (reward[batch.chosen] - reward[batch.rejected]) / self.beta0
        metrics = {**pair_metrics(reward, batch), "beta": Mean(signals["beta"])}
        return Loss(Term(-log_sigmoid(signals["beta"] * margin)), metrics)


@hookimpl
def register_algorithms():
    return [BetaDPO]
