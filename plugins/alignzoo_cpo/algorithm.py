"""Contrastive preference optimisation, arXiv:2401.08417."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alignzoo import Algorithm, Loss, Metric, PairBatch, Role, Signal, Signals, State, Term, option
from alignzoo.ops import log_prob, log_sigmoid, pair_metrics, sequence_mean, sequence_sum


@dataclass(frozen=True)
class CPO(Algorithm[PairBatch]):
    """L = -log sigmoid(beta (S(y_w) - S(y_l))) + nll_weight NLL(y_w).

    S: sum of log-probabilities of the response, the reference taken to be uniform; mean over pairs.
    NLL: mean over the response tokens of all chosen rows. Source: arXiv:2401.08417.
    Deviation: the authors average the NLL per sequence first; the token mean is what TRL computes.
    """

    name = "cpo"
    roles = {"policy": Role(trainable=True, doc="the model that learns; there is no reference")}
    metrics = {
        "rewards/chosen": Metric("beta S of the chosen response", "nats"),
        "rewards/rejected": Metric("beta S of the rejected response", "nats"),
        "rewards/margin": Metric("chosen minus rejected reward", "nats", low=0.0),
        "rewards/accuracy": Metric("share of pairs with chosen > rejected, ties wrong", low=0.5),
    }

    beta: float = option(0.1, "scale of the preference margin", gt=0)
    nll_weight: float = option(1.0, "weight of imitating the chosen response", ge=0)

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities that are trained."""
        return {"policy": log_prob("policy")}

    def score(self, policy: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B] S of every response from log-probabilities [B, S]."""
        return sequence_sum(policy, mask)

    def margin(self, difference: torch.Tensor) -> torch.Tensor:
        """[I] argument of the sigmoid from S(y_w) - S(y_l)."""
        return self.beta * difference

    def loss(self, batch: PairBatch, signals: Signals, state: State) -> Loss:
        """One value per pair, and one per token of the chosen responses."""
        policy = signals["policy"]  # [B, S]
        score = self.score(policy, batch.mask)  # [B]
        margin = self.margin(score[batch.chosen] - score[batch.rejected])  # [I]
        imitated = batch.mask.clone()
        imitated[batch.rejected] = False
        terms = {
            "preference": Term(-log_sigmoid(margin)),
            "nll": Term(-policy, imitated, self.nll_weight),
        }
        return Loss(terms, pair_metrics(self.beta * score, batch))


@dataclass(frozen=True)
class CPOSimPO(CPO):
    """L = -log sigmoid(beta (A(y_w) - A(y_l) - gamma_ratio)) + nll_weight NLL(y_w).

    CPO with the length-averaged log-probabilities A and the margin of SimPO (arXiv:2405.14734);
    logged rewards are beta A. Source: https://github.com/fe1ixxu/CPO_SIMPO.
    """

    name = "cpo_simpo"

    gamma_ratio: float = option(0.5, "gamma / beta: margin between mean log-probabilities", ge=0)

    def score(self, policy: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B] A of every response."""
        return sequence_mean(policy, mask)

    def margin(self, difference: torch.Tensor) -> torch.Tensor:
        """[I] the same with the margin taken off."""
        return self.beta * (difference - self.gamma_ratio)
