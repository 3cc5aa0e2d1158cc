"""AlignDistil, arXiv:2503.02832 (ACL 2025)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alignzoo import (
    Algorithm,
    Batch,
    Loss,
    Max,
    Mean,
    Metric,
    Outputs,
    Role,
    Signal,
    Signals,
    State,
    TextBatch,
    option,
)
from alignzoo.ops import (
    REDUCTIONS,
    kl_divergence,
    log_softmax,
    sequence_mean,
    sequence_sum,
    total_variation,
)

# Teacher logits from the DPO model, the anchor and the weight alpha (Eq. 15/17 and Eq. 11).
TEACHERS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "contrastive": lambda dpo, anchor, alpha: dpo + alpha * (dpo - anchor),
    "vanilla": lambda dpo, anchor, alpha: anchor + alpha * (dpo - anchor),
}
DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "half": total_variation,
    "l1": lambda p, q: 2 * total_variation(p, q),
}
POSITIONS: Mapping[str, Callable[[Batch], Tensor]] = {
    "aligned": lambda batch: batch.mask,
    "official": lambda batch: batch.response,
}


@dataclass(frozen=True)
class AlignDistil(Algorithm[TextBatch]):
    """L = mean_b 1/n_b sum_t beta_t KL(pi(.|s_t) || softmax(z*_t)).

    z*_t = z_dpo + alpha_t (z_dpo - z_anchor), alpha_t = r TVD_t + epsilon, beta_t = beta0/alpha_t,
    TVD_t = 1/2 sum_v |pi_dpo(v) - pi_anchor(v)|; reverse KL over the full vocabulary, gradient
    through the policy alone. Source: arXiv:2503.02832 Eq. 10-19.

    Fed with a dataset it is the off-policy method (Eq. 19), with a `rollout:` block the on-policy
    one (Eq. 18). Deviations: beta_t stands inside the sum (the printed equations have it outside,
    although it depends on t). `tvd: l1` and `positions: official` repeat the released code, which
    drops the 1/2 and reads the logits one position late.
    """

    name = "aligndistil"
    batch = TextBatch
    roles = {
        "policy": Role(trainable=True, doc="the model that learns"),
        "teacher": Role(doc="the DPO model pi_dpo"),
        "anchor": Role(doc="contrastive: the reverse DPO model; vanilla: the initial model"),
    }
    metrics = {
        "tvd/mean": Metric("mean TVD (1/2 L1) of teacher and anchor per token", low=0.0, high=1.0),
        "alpha/mean": Metric("mean extrapolation weight; tune r so that it is about .3", low=0.0),
        "alpha/max": Metric("largest extrapolation weight"),
        "beta_t/mean": Metric("mean weight of a token's KL"),
        "beta_t/max": Metric("largest weight of a token's KL"),
        "kl_full/teacher_seq": Metric(
            "full KL(policy || pi_dpo), sum over a response", "nats", 0.0
        ),
        "kl_full/teacher_token": Metric("the same, mean over a response's tokens", "nats", 0.0),
        "kl_full/anchor_seq": Metric("KL(policy || anchor), sum over a response", "nats", 0.0),
        "kl_full/anchor_token": Metric("the same, mean over a response's tokens", "nats", 0.0),
        "reward/token_avg": Metric("beta0 log(pi_dpo/pi_anchor)(y_t), mean over tokens", "nats"),
        "reward/seq": Metric("the same, sum over a response", "nats"),
        "reward/expected": Metric("its expectation under the policy, sum over a response", "nats"),
    }

    reward: Literal["contrastive", "vanilla"] = option(
        "contrastive", "teacher of Eq. 15/17, or interpolation with the initial model, Eq. 11"
    )
    extrapolation: Literal["adaptive", "constant"] = option(
        "adaptive", "alpha_t = r TVD_t + epsilon (Eq. 16), or alpha = beta0/beta (Eq. 11)"
    )
    r: float | None = option(None, "adaptive: scale of alpha_t, Eq. 16; does not transfer", gt=0)
    beta: float | None = option(None, "constant: strength of the new KL constraint, Eq. 9", gt=0)
    beta0: float = option(0.1, "beta the DPO models were trained with, Eq. 5", gt=0)
    epsilon: float = option(1e-3, "smallest alpha_t, Eq. 16", gt=0)
    tvd: Literal["half", "l1"] = option("half", "half: Eq. 16; l1: released code, twice that")
    beta_weighting: Literal["per_token", "none"] = option(
        "per_token", "weight of a token's KL: beta_t inside the sum (Eq. 18), or none"
    )
    reduction: Literal["sequence_mean", "sequence_sum", "token_mean"] = option(
        "sequence_mean", "over tokens: 1/n_b sum_t (Eq. 18), sum_t (Eq. 10), or all tokens alike"
    )
    positions: Literal["aligned", "official"] = option(
        "aligned", "which logits count; official: the released code's, one position late"
    )
    temperature: float = option(1.0, "divides student and teacher logits, not those of TVD", gt=0)
    alpha_max: float | None = option(None, "cap of alpha_t; none in the paper", gt=0)

    def __post_init__(self) -> None:
        """Each extrapolation has its own scale."""
        needed = {"adaptive": "r", "constant": "beta"}[self.extrapolation]
        if getattr(self, needed) is None:
            raise ValueError(f"extrapolation: {self.extrapolation} needs the option '{needed}'")

    def signals(self) -> Mapping[str, Signal]:
        """Everything is read in one pass over the three models' logits."""
        roles = ("policy", "teacher", "anchor")
        return {"distil": Signal(roles, self.rows, POSITIONS[self.positions])}

    def rows(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """[n] rows: the KL with gradient, and what the metrics need without."""
        dpo, anchor = log_softmax(outputs["teacher"]), log_softmax(outputs["anchor"])
        tvd = total_variation(dpo, anchor)
        alpha = self.alpha(dpo, anchor)
        target = log_softmax(TEACHERS[self.reward](dpo, anchor, alpha[:, None]) / self.temperature)
        policy = log_softmax(outputs["policy"] / self.temperature)
        with torch.no_grad():
            student = log_softmax(outputs["policy"])
            ratio = self.beta0 * (dpo - anchor)
            rows = {
                "tvd": tvd,
                "alpha": alpha,
                "beta_t": self.beta0 / alpha,
                "kl_teacher": kl_divergence(student, dpo),
                "kl_anchor": kl_divergence(student, anchor),
                "reward": ratio.gather(-1, labels[:, None]).squeeze(-1),
                "expected": (student.exp() * ratio).sum(-1),
            }
        return {"kl": kl_divergence(policy, target), **rows}

    def alpha(self, dpo: Tensor, anchor: Tensor) -> Tensor:
        """[n] extrapolation weight from log-probabilities [n, V]."""
        distance = DISTANCES[self.tvd](dpo, anchor)
        if self.extrapolation == "constant" and self.beta:
            return torch.full_like(distance, self.beta0 / self.beta)
        alpha = (self.r or 0.0) * distance + self.epsilon
        return alpha if self.alpha_max is None else alpha.clamp(max=self.alpha_max)

    def loss(self, batch: TextBatch, signals: Signals, state: State) -> Loss:
        """One value per sequence (or token, with reduction: token_mean)."""
        mask = POSITIONS[self.positions](batch)
        row = {name: signals[f"distil/{name}"] for name in ROWS}
        weight = row["beta_t"] if self.beta_weighting == "per_token" else 1.0
        return Loss(REDUCTIONS[self.reduction](weight * row["kl"], mask), _metrics(row, mask))


ROWS = ("kl", "tvd", "alpha", "beta_t", "kl_teacher", "kl_anchor", "reward", "expected")


def _metrics(row: Mapping[str, Tensor], mask: Tensor) -> dict[str, Mean | Max]:
    return {
        "tvd/mean": Mean(row["tvd"], mask),
        "alpha/mean": Mean(row["alpha"], mask),
        "alpha/max": Max(row["alpha"], mask),
        "beta_t/mean": Mean(row["beta_t"], mask),
        "beta_t/max": Max(row["beta_t"], mask),
        "kl_full/teacher_seq": Mean(sequence_sum(row["kl_teacher"], mask)),
        "kl_full/teacher_token": Mean(sequence_mean(row["kl_teacher"], mask)),
        "kl_full/anchor_seq": Mean(sequence_sum(row["kl_anchor"], mask)),
        "kl_full/anchor_token": Mean(sequence_mean(row["kl_anchor"], mask)),
        "reward/token_avg": Mean(sequence_mean(row["reward"], mask)),
        "reward/seq": Mean(sequence_sum(row["reward"], mask)),
        "reward/expected": Mean(sequence_sum(row["expected"], mask)),
    }
