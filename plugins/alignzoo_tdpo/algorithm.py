"""Token-level direct preference optimisation, arXiv:2404.11999."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from alignzoo import (
    Algorithm,
    Batch,
    Loss,
    Mean,
    Metric,
    PairBatch,
    Role,
    Signal,
    Signals,
    State,
    Term,
    option,
)
from alignzoo.ops import implicit_reward, kl, log_prob, log_sigmoid, pair_metrics, sequence_sum

POSITIONS: Mapping[str, Callable[[Batch], torch.Tensor]] = {
    "aligned": lambda batch: batch.mask,
    "official": lambda batch: batch.response,
}


@dataclass(frozen=True)
class TDPO1(Algorithm[PairBatch]):
    """L = -log sigmoid(beta (D - (K_l - K_w))), mean over pairs.

    D = [S_pi - S_ref](y_w) - [S_pi - S_ref](y_l) as in DPO; K = sum_t KL(ref(.|s_t) || pi(.|s_t))
    of a response, forward and over the full vocabulary, with gradient through both. Source:
    arXiv:2404.11999. Deviation as an option: `positions: official` reads K one position
    late, after the stop token instead of before the first one, as the AlignDistil code does.
    """

    name = "tdpo1"
    roles = {
        "policy": Role(trainable=True, doc="the model that learns"),
        "reference": Role(like="policy", doc="frozen; by default the policy's start"),
    }
    metrics = {
        "rewards/chosen": Metric("beta [S_pi - S_ref + K] of the chosen response", "nats"),
        "rewards/rejected": Metric("the same of the rejected response", "nats"),
        "rewards/margin": Metric("chosen minus rejected reward", "nats", low=0.0),
        "rewards/accuracy": Metric("share of pairs with chosen > rejected, ties wrong", low=0.5),
        "kl_full/chosen": Metric("K of the chosen response", "nats", low=0.0),
        "kl_full/rejected": Metric("K of the rejected response", "nats", low=0.0),
    }

    beta: float = option(0.1, "strength of the KL constraint", gt=0)
    positions: Literal["aligned", "official"] = option(
        "aligned", "where K is read; official: the AlignDistil code's, one position late"
    )

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities of both models, and the KL of their distributions."""
        forward_kl = replace(kl("reference", "policy"), positions=POSITIONS[self.positions])
        return {"policy": log_prob("policy"), "reference": log_prob("reference"), "kl": forward_kl}

    def at_start(self) -> Mapping[str, float]:
        """Equal policy and reference cannot prefer anything, nor diverge."""
        return {"loss": math.log(2), "rewards/margin": 0.0, "kl_full/chosen": 0.0}

    def divergence_gap(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        """[I] what the pair's divergences K [I] take from D."""
        return rejected - chosen

    def loss(self, batch: PairBatch, signals: Signals, state: State) -> Loss:
        """One value per pair."""
        ratio = implicit_reward(1.0, signals["policy"], signals["reference"], batch.mask)  # [B]
        divergence = sequence_sum(signals["kl"], POSITIONS[self.positions](batch))  # [B]
        k_w, k_l = divergence[batch.chosen], divergence[batch.rejected]
        delta = ratio[batch.chosen] - ratio[batch.rejected]  # [I]
        margin = self.beta * (delta - self.divergence_gap(k_w, k_l))
        logged = {
            **pair_metrics(self.beta * (ratio + divergence), batch),
            "kl_full/chosen": Mean(k_w.detach()),
            "kl_full/rejected": Mean(k_l.detach()),
        }
        return Loss(Term(-log_sigmoid(margin)), logged)


@dataclass(frozen=True)
class TDPO2(TDPO1):
    """L = -log sigmoid(beta (D - alpha (K_l - sg[K_w]))), mean over pairs, D and K as in TDPO1.

    sg: no gradient through the chosen response's K; the rejected one's keeps it. Source:
    arXiv:2404.11999. The default of alpha is that of arXiv:2503.02832; the TDPO authors'
    code has 1/2. Logged rewards are those of TDPO1, without alpha.
    """

    name = "tdpo2"

    alpha: float = option(0.1, "weight of the divergences", ge=0)

    def divergence_gap(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        """[I] the same, weighted, with gradient through the rejected one alone."""
        return self.alpha * (rejected - chosen.detach())
