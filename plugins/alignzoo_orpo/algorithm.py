"""Odds-ratio preference optimisation, arXiv:2403.07691."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from alignzoo import (
    Algorithm,
    Batch,
    Loss,
    Metric,
    PairBatch,
    Role,
    Signal,
    Signals,
    State,
    Term,
    option,
)
from alignzoo.ops import log_prob, log_sigmoid, pair_metrics, sequence_mean


def chosen_text(batch: Batch) -> torch.Tensor:
    """[B, S] bool: positions that predict any token of a chosen row, the prompt's included."""
    row = torch.arange(batch.ids.shape[0], device=batch.ids.device)
    following = torch.nn.functional.pad(batch.attention[:, 1:], (0, 1))
    return following & (row < batch.n_items)[:, None]


def log_odds(mean: torch.Tensor) -> torch.Tensor:
    """Log p/(1 - p) of p = exp(mean), mean < 0; finite for a response the model is certain of."""
    mean = mean.clamp(max=-torch.finfo(mean.dtype).eps)
    return mean - torch.log(-torch.expm1(mean))


@dataclass(frozen=True)
class ORPO(Algorithm[PairBatch]):
    """L = NLL(x, y_w) - beta log sigmoid(log odds(y_w) - log odds(y_l)).

    NLL: mean over the prompt and response tokens of all chosen rows; the second term: mean over
    pairs. odds(y) = p / (1 - p), p = exp(A), A the mean log-probability of the response's tokens.
    Source: arXiv:2403.07691 Eq. 6-7, whose lambda is beta.
    """

    name = "orpo"
    roles = {"policy": Role(trainable=True, doc="the model that learns; there is no reference")}
    metrics = {
        "rewards/chosen": Metric("beta A of the chosen response", "nats"),
        "rewards/rejected": Metric("beta A of the rejected response", "nats"),
        "rewards/margin": Metric("chosen minus rejected reward", "nats", low=0.0),
        "rewards/accuracy": Metric("share of pairs with chosen > rejected, ties wrong", low=0.5),
        "log_odds_ratio": Metric("log odds(y_w) - log odds(y_l)", "nats", low=0.0),
    }

    beta: float = option(0.1, "weight of the odds ratio beside imitation", gt=0)

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities of chosen prompts and of both responses."""
        return {
            "policy": replace(log_prob("policy"), positions=lambda b: b.mask | chosen_text(b)),
        }

    def loss(self, batch: PairBatch, signals: Signals, state: State) -> Loss:
        """One value per token of the chosen rows, and one per pair."""
        policy = signals["policy"]  # [B, S]
        mean = sequence_mean(policy, batch.mask)  # [B]
        odds = log_odds(mean)
        ratio = odds[batch.chosen] - odds[batch.rejected]  # [I]
        terms = {
            "nll": Term(-policy, chosen_text(batch)),
            "odds_ratio": Term(-log_sigmoid(ratio), scale=self.beta),
        }
        rewards = pair_metrics(self.beta * mean, batch)
        return Loss(terms, {**rewards, "log_odds_ratio": ratio.detach()})
