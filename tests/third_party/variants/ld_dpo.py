"""LD-DPO as a package from outside: what the longer answer has in excess counts for less."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo import (
    Algorithm,
    Loss,
    Metric,
    PairBatch,
    Role,
    Signal,
    Signals,
    State,
    Term,
    hookimpl,
    option,
)
from alignzoo.ops import log_prob, log_sigmoid, pair_metrics, sequence_sum


@dataclass(frozen=True)
class LDDPO(Algorithm[PairBatch]):
    """L = -log sigmoid(beta (D_w - D_l)), D = sum_{t <= m} d_t + alpha sum_{t > m} d_t.

    d_t = log pi - log pi_ref of token t, m the length of the shorter answer of the pair. Source:
    arXiv:2409.06411.
    """

    name = "ld_dpo"
    roles = {"policy": Role(trainable=True), "reference": Role(like="policy")}
    metrics = {
        "rewards/chosen": Metric("beta D_w", "nats"),
        "rewards/rejected": Metric("beta D_l", "nats"),
        "rewards/margin": Metric("beta (D_w - D_l)", "nats"),
        "rewards/accuracy": Metric("share of pairs with D_w > D_l"),
    }
    beta: float = option(0.1, "strength of the KL constraint", gt=0)
    alpha: float = option(0.5, "weight of the tokens beyond the shorter answer", ge=0, le=1)

    def signals(self) -> Mapping[str, Signal]:
        return {"policy": log_prob("policy")}

    def snapshots(self) -> Mapping[str, Signal]:
        return {"reference": log_prob("reference")}

    def weighted(self, ratio: Tensor, batch: PairBatch) -> Tensor:
        """[B, S] d_t up to the shorter answer's length, alpha d_t after it."""
        place = batch.mask.cumsum(-1)  # of a token in its answer, from 1
        length = batch.mask.sum(-1)
        shorter = torch.minimum(length[batch.chosen], length[batch.rejected]).repeat(2)
        return torch.where(place <= shorter[:, None], ratio, self.alpha * ratio)

    def loss(self, batch: PairBatch, signals: Signals, state: State) -> Loss:
        ratio = self.weighted(signals["policy"] - signals["reference"], batch)
        reward = self.beta * sequence_sum(ratio, batch.mask)
        margin = reward[batch.chosen] - reward[batch.rejected]
        return Loss(Term(-log_sigmoid(margin)), pair_metrics(reward, batch))


@hookimpl
def register_algorithms():
    return [LDDPO]
