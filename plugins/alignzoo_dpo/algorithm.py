"""Direct preference optimisation, arXiv:2305.18290."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alignzoo import Algorithm, Loss, Metric, PairBatch, Role, Signal, Signals, State, Term, option
from alignzoo.ops import implicit_reward, log_prob, log_sigmoid, pair_log_probs, pair_metrics


@dataclass(frozen=True)
class DPO(Algorithm[PairBatch]):
    """L = -(1 - e) log sigmoid(beta D) - e log sigmoid(-beta D), mean over pairs.

    D = [S_pi - S_ref](y_w) - [S_pi - S_ref](y_l), S the sum of log-probabilities of the response.
    Source: arXiv:2305.18290 Eq. 7 (AlignDistil, arXiv:2503.02832, Eq. 4); e > 0 is conservative
    DPO. Reverse DPO is the same method on swapped data: `data: {swap: true}`.
    """

    name = "dpo"
    roles = {
        "policy": Role(trainable=True, doc="the model that learns"),
        "reference": Role(like="policy", doc="frozen; by default the policy's start"),
    }
    metrics = {
        "rewards/chosen": Metric("beta [S_pi - S_ref] of the chosen response", "nats"),
        "rewards/rejected": Metric("the same of the rejected response", "nats"),
        "rewards/margin": Metric("chosen minus rejected reward", "nats", low=0.0),
        "rewards/accuracy": Metric("share of pairs with chosen > rejected, ties wrong", low=0.5),
        "logps/chosen": Metric("S_pi of the chosen response; falls if both answers do", "nats"),
        "logps/rejected": Metric("S_pi of the rejected response", "nats"),
    }

    units = {"reward": "nats"}

    beta: float = option(0.1, "strength of the KL constraint, Eq. 4", gt=0)
    label_smoothing: float = option(0.0, "share e of labels taken to be wrong", ge=0, le=0.5)

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities that are trained."""
        return {"policy": log_prob("policy")}

    def snapshots(self) -> Mapping[str, Signal]:
        """Log-probabilities that never change."""
        return {"reference": log_prob("reference")}

    def shown(self, signals: Signals) -> Signals:
        """The DPO reward of a token, beta log(pi / pi_ref)."""
        return {"reward": self.beta * (signals["policy"] - signals["reference"])}

    def at_start(self) -> Mapping[str, float]:
        """Equal policy and reference cannot prefer anything."""
        return {"loss": math.log(2), "rewards/margin": 0.0}

    def pair_loss(self, delta: "torch.Tensor") -> "torch.Tensor":
        """[I] loss of each pair from D [I]."""
        e = self.label_smoothing
        return -(1 - e) * log_sigmoid(self.beta * delta) - e * log_sigmoid(-self.beta * delta)

    def loss(self, batch: PairBatch, signals: Signals, state: State) -> Loss:
        """One value per pair."""
        ratio = implicit_reward(1.0, signals["policy"], signals["reference"], batch.mask)  # [B]
        delta = ratio[batch.chosen] - ratio[batch.rejected]  # [I]
        logged = pair_metrics(self.beta * ratio, batch) | pair_log_probs(signals["policy"], batch)
        return Loss(Term(self.pair_loss(delta)), logged)
