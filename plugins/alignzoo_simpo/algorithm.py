"""Simple preference optimisation, arXiv:2405.14734."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alignzoo import Algorithm, Loss, Metric, PairBatch, Role, Signal, Signals, State, Term, option
from alignzoo.ops import log_prob, log_sigmoid, pair_metrics, sequence_mean


@dataclass(frozen=True)
class SimPO(Algorithm[PairBatch]):
    """L = -(1 - e) log sigmoid(beta u) - e log sigmoid(-beta u), mean over pairs.

    u = A(y_w) - A(y_l) - gamma_ratio, A the mean log-probability of the response's tokens, the stop
    token included. Source: arXiv:2405.14734 Eq. 6, whose gamma is beta gamma_ratio. Defaults are
    those of arXiv:2503.02832, not of the SimPO authors' code (beta 2, ratio 1/4).
    """

    name = "simpo"
    roles = {"policy": Role(trainable=True, doc="the model that learns; there is no reference")}
    metrics = {
        "rewards/chosen": Metric("beta A of the chosen response, gamma not included", "nats"),
        "rewards/rejected": Metric("beta A of the rejected response", "nats"),
        "rewards/margin": Metric("their difference; the loss asks for gamma", "nats", low=0.0),
        "rewards/accuracy": Metric("share of pairs with chosen > rejected, ties wrong", low=0.5),
    }

    beta: float = option(10.0, "scale of the reward beta A", gt=0)
    gamma_ratio: float = option(0.5, "gamma / beta: margin between mean log-probabilities", ge=0)
    label_smoothing: float = option(0.0, "share e of labels taken to be wrong", ge=0, le=0.5)

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities that are trained."""
        return {"policy": log_prob("policy")}

    def pair_loss(self, u: torch.Tensor) -> torch.Tensor:
        """[I] loss of each pair from u [I]."""
        e = self.label_smoothing
        return -(1 - e) * log_sigmoid(self.beta * u) - e * log_sigmoid(-self.beta * u)

    def loss(self, batch: PairBatch, signals: Signals, state: State) -> Loss:
        """One value per pair."""
        mean = sequence_mean(signals["policy"], batch.mask)  # [B]
        u = mean[batch.chosen] - mean[batch.rejected] - self.gamma_ratio  # [I]
        return Loss(Term(self.pair_loss(u)), pair_metrics(self.beta * mean, batch))


@dataclass(frozen=True)
class HingeSimPO(SimPO):
    """L = max(0, 1 - beta u), mean over pairs, u as in SimPO: no gradient beyond the margin.

    Source: the hinge form in the code of the authors of arXiv:2405.14734. `label_smoothing` has no
    meaning here and changes nothing.
    """

    name = "hinge_simpo"

    def pair_loss(self, u: torch.Tensor) -> torch.Tensor:
        """[I] what u [I] lacks to the margin 1 / beta, in units of it."""
        return (1 - self.beta * u).clamp(min=0)
