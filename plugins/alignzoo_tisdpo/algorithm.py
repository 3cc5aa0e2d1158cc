"""Token-level importance sampling DPO, arXiv:2410.04350 (ICLR 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

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
    World,
    option,
)
from alignzoo.ops import kl, log_prob, log_sigmoid, pair_metrics, sequence_mean, sequence_sum


@dataclass(frozen=True)
class TISDPO(Algorithm[PairBatch]):
    """L = -log sigmoid(beta (D_w - alpha E)), mean over pairs.

    D_w = sum_t w_t [log pi - log pi_ref](y_t) of the chosen response, less that of the rejected
    one; E = sum_t w_t KL(pi(.|s_t) || pi_ref(.|s_t)), likewise, over the full vocabulary.
    w_t = exp(mu clamp(log pi_+(y_t) - log pi_-(y_t), low, high)), mu = +m in the chosen response
    and -m in the rejected one; pi_+ and pi_- are a model trained towards what people like and one
    trained away from it, such as DPO and reverse DPO. Source: arXiv:2410.04350. Deviations: the
    factor k of every weight is part of beta here; KL takes the policy first, as in a fork of the
    authors' code; the defaults of m, low and high are ours.
    """

    name = "tis_dpo"
    roles = {
        "policy": Role(trainable=True, doc="the model that learns"),
        "reference": Role(like="policy", doc="frozen; by default the policy's start"),
        "positive": Role(doc="pi_+, trained towards the chosen responses, such as by DPO"),
        "negative": Role(doc="pi_-, trained towards the rejected ones, such as by reverse DPO"),
    }
    metrics = {
        "rewards/chosen": Metric("beta sum_t w_t log(pi/ref) of the chosen response", "nats"),
        "rewards/rejected": Metric("the same of the rejected response", "nats"),
        "rewards/margin": Metric("chosen minus rejected reward", "nats", low=0.0),
        "rewards/accuracy": Metric("share of pairs with chosen > rejected, ties wrong", low=0.5),
        "weight/chosen": Metric("w_t, mean over a chosen response's tokens", low=0.0),
        "weight/rejected": Metric("the same of the rejected response", low=0.0),
    }

    beta: float = option(0.1, "strength of the KL constraint", gt=0)
    alpha: float = option(0.5, "weight of the divergences E", ge=0)
    m: float = option(1.0, "|mu|: how far weights follow the models; 0: all are 1", ge=0)
    low: float = option(-0.5, "smallest log-ratio of the models that counts", le=0)
    high: float = option(1.5, "largest log-ratio of the models that counts", ge=0)

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities that are trained, and the divergence from the reference."""
        return {"policy": log_prob("policy"), "kl": kl("policy", "reference")}

    def snapshots(self) -> Mapping[str, Signal]:
        """Log-probabilities that never change."""
        return {role: log_prob(role) for role in ("reference", "positive", "negative")}

    def at_start(self) -> Mapping[str, float]:
        """Equal policy and reference cannot prefer anything."""
        return {"loss": log(2), "rewards/margin": 0.0}

    def prepare(self, batch: PairBatch, signals: Signals, world: World) -> Signals:
        """The weights w_t [B, S]; they never change."""
        ratio = signals["positive"] - signals["negative"]
        exponent = self.m * ratio.clamp(self.low, self.high)
        exponent[batch.rejected] *= -1
        return {"weight": exponent.exp() * batch.mask}

    def loss(self, batch: PairBatch, signals: Signals, state: State) -> Loss:
        """One value per pair."""
        weight, chosen, rejected = signals["weight"], batch.chosen, batch.rejected
        ratio = weight * (signals["policy"] - signals["reference"])  # [B, S]
        reward = sequence_sum(ratio, batch.mask)  # [B]
        value = reward - self.alpha * sequence_sum(weight * signals["kl"], batch.mask)  # [B]
        mean = sequence_mean(weight, batch.mask)
        weights = {"weight/chosen": mean[chosen], "weight/rejected": mean[rejected]}
        loss = -log_sigmoid(self.beta * (value[chosen] - value[rejected]))  # [I]
        return Loss(Term(loss), {**pair_metrics(self.beta * reward, batch), **weights})
