"""WPO as a package from outside: pairs count by how likely the policy is to say them."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from alignzoo import (
    Algorithm,
    Loss,
    Mean,
    Metric,
    Outputs,
    PairBatch,
    Role,
    Signal,
    Signals,
    State,
    Term,
    hookimpl,
    option,
)
from alignzoo.ops import (
    implicit_reward,
    label_log_prob,
    log_prob,
    log_sigmoid,
    log_softmax,
    pair_metrics,
    sequence_mean,
    watched,
)


def aligned(out: Outputs, labels: Tensor) -> Tensor:
    """[n] log p(y_t) - log sum_v p(v)^2."""
    return label_log_prob(out["policy"], labels) - (2 * log_softmax(out["policy"])).logsumexp(-1)


@dataclass(frozen=True)
class WPO(Algorithm[PairBatch]):
    """L = -w_w w_l log sigmoid(beta D), w = exp(1/n sum_t [log p(y_t) - log sum_v p(v)^2]).

    D as in DPO; w of either answer from the policy of the moment, without gradient. Source:
    arXiv:2406.11827.
    """

    name = "wpo"
    roles = {"policy": Role(trainable=True), "reference": Role(like="policy")}
    metrics = {
        "rewards/chosen": Metric("beta log(pi/ref) of the chosen answer", "nats"),
        "rewards/rejected": Metric("the same of the rejected answer", "nats"),
        "rewards/margin": Metric("chosen minus rejected", "nats"),
        "rewards/accuracy": Metric("share of pairs with chosen > rejected"),
        "weight": Metric("w_w w_l, mean over pairs", low=0.0),
    }
    beta: float = option(0.1, "strength of the KL constraint", gt=0)

    def signals(self) -> Mapping[str, Signal]:
        return {
            "policy": log_prob("policy"),
            "aligned": watched(Signal(("policy",), aligned)),
        }

    def snapshots(self) -> Mapping[str, Signal]:
        return {"reference": log_prob("reference")}

    def loss(self, batch: PairBatch, signals: Signals, state: State) -> Loss:
        reward = implicit_reward(self.beta, signals["policy"], signals["reference"], batch.mask)
        margin = reward[batch.chosen] - reward[batch.rejected]
        likely = sequence_mean(signals["aligned"], batch.mask).exp()
        weight = likely[batch.chosen] * likely[batch.rejected]
        metrics = {**pair_metrics(reward, batch), "weight": Mean(weight)}
        return Loss(Term(-weight * log_sigmoid(margin)), metrics)


@hookimpl
def register_algorithms():
    return [WPO]
