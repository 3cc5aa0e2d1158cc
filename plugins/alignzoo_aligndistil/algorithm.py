"""AlignDistil, arXiv:2503.02832 (ACL 2025)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from alignzoo import (
    Algorithm,
    Batch,
    Loss,
    Max,
    Mean,
    Metric,
    Outputs,
    Role,
    Scratch,
    Signal,
    Signals,
    State,
    TextBatch,
    ops,
    option,
)
from alignzoo_aligndistil.closed import How, derived

# Teacher logits from the DPO model, the anchor and the weight alpha (Eq. 15/17 and Eq. 11).
TEACHERS: Mapping[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "contrastive": lambda dpo, anchor, alpha: dpo + alpha * ops.log_ratio(dpo, anchor),
    "vanilla": ops.interpolated,
}
DISTANCES = {"half": 1.0, "l1": 2.0}  # in TVD
POSITIONS: Mapping[str, Callable[[Batch], torch.Tensor]] = {
    "aligned": lambda batch: batch.mask,
    "official": lambda batch: batch.response,
}


def _seq(row: torch.Tensor, mask: torch.Tensor) -> Mean:
    return Mean(ops.sequence_sum(row, mask))


def _token(row: torch.Tensor, mask: torch.Tensor) -> Mean:
    return Mean(ops.sequence_mean(row, mask))


# Metric -> what it is, the row of the signal it is read from, and how.
LOGGED: Mapping[str, tuple[Metric, str, Callable[[torch.Tensor, torch.Tensor], Mean | Max]]] = {
    "tvd/mean": (Metric("mean TVD (1/2 L1) of teacher and anchor", "", 0.0, 1.0), "tvd", Mean),
    "alpha/mean": (Metric("mean alpha_t; tune r until it is about .3", "", 0.0), "alpha", Mean),
    "alpha/max": (Metric("largest alpha_t"), "alpha", Max),
    "beta_t/mean": (Metric("mean weight of a token's KL"), "beta_t", Mean),
    "beta_t/max": (Metric("largest weight of a token's KL"), "beta_t", Max),
    "kl_full/teacher_seq": (Metric("KL(policy || dpo) of a response", "nats", 0.0), "kl_dpo", _seq),
    "kl_full/teacher_token": (Metric("the same per token", "nats", 0.0), "kl_dpo", _token),
    "kl_full/anchor_seq": (Metric("KL(policy || anchor), summed", "nats", 0.0), "kl_anchor", _seq),
    "kl_full/anchor_token": (Metric("the same per token", "nats", 0.0), "kl_anchor", _token),
    "reward/token_avg": (Metric("beta0 log(dpo/anchor)(y_t) per token", "nats"), "reward", _token),
    "reward/seq": (Metric("the same, sum over a response", "nats"), "reward", _seq),
    "reward/expected": (Metric("its mean under the policy, summed", "nats"), "expected", _seq),
}
IN_NATS = ("kl", "kl_dpo", "kl_anchor", "reward", "expected")  # rows; the others have no unit


@dataclass(frozen=True)
class AlignDistil(Algorithm[TextBatch]):
    """L = mean_b 1/n_b sum_t beta_t KL(pi(.|s_t) || softmax(z*_t)).

    z*_t = z_dpo + alpha_t (z_dpo - z_anchor), alpha_t = r TVD_t + epsilon, beta_t = beta0/alpha_t,
    TVD_t = 1/2 sum_v |pi_dpo(v) - pi_anchor(v)|; reverse KL over the full vocabulary, gradient
    through the policy alone. Source: arXiv:2503.02832 Eq. 10-19.

    Fed with a dataset it is the off-policy method (Eq. 19), with a `rollout:` block the on-policy
    one (Eq. 18). Deviations: beta_t stands inside the sum (the printed equations have it outside,
    although it depends on t). `tvd: l1` and `positions: official` repeat the released code, which
    drops the 1/2 and reads the logits one position late. A token that teacher and anchor give
    probability 0 has it under z* too; one that the anchor alone forbids makes the loss +inf.
    """

    name = "aligndistil"
    batch = TextBatch
    example_options = {"r": 2.0}
    roles = {
        "policy": Role(trainable=True, doc="the model that learns"),
        "teacher": Role(doc="the DPO model pi_dpo"),
        "anchor": Role(doc="contrastive: the reverse DPO model; vanilla: the initial model"),
    }
    metrics = {name: metric for name, (metric, _, _) in LOGGED.items()}
    units = dict.fromkeys((f"distil/{row}" for row in IN_NATS), "nats")

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
        where = POSITIONS[self.positions]
        return {"distil": Signal(roles, self.rows, where, closed=self.closed)}

    def rows(self, outputs: Outputs, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """[n] rows: the KL with gradient, and what the metrics need without."""
        dpo, anchor = ops.log_softmax(outputs["teacher"]), ops.log_softmax(outputs["anchor"])
        tvd = ops.total_variation(dpo, anchor)
        alpha = self.alpha(tvd)
        target = TEACHERS[self.reward](dpo, anchor, alpha[:, None])
        policy = ops.log_softmax(outputs["policy"] / self.temperature)
        with torch.no_grad():
            student = ops.log_softmax(outputs["policy"])
            reward = self.beta0 * ops.log_ratio(dpo, anchor)
            rows = {
                "tvd": tvd,
                "alpha": alpha,
                "beta_t": self.beta0 / alpha,
                "kl_dpo": ops.kl_divergence(student, dpo),
                "kl_anchor": ops.kl_divergence(student, anchor),
                "reward": reward.gather(-1, labels[:, None]).squeeze(-1),
                "expected": ops.expectation(student, reward),
            }
        kl = ops.kl_divergence(policy, ops.log_softmax(target / self.temperature))
        # Where the anchor forbids what the DPO model allows, all of the teacher's mass is there.
        return {"kl": kl.masked_fill(target.amax(-1).isposinf(), torch.inf), **rows}

    def closed(
        self, outputs: Outputs, labels: torch.Tensor, scratch: Scratch, wanted: Collection[str]
    ) -> tuple[dict[str, torch.Tensor], Outputs]:
        """The same rows and the gradient of the KL, a few positions at a time."""
        how = How(self.alpha, self.beta0, self.reward == "contrastive", self.temperature)
        return derived(how, labels, scratch, wanted)

    def distributions(self, outputs: Outputs) -> Mapping[str, torch.Tensor]:
        """The synthetic teacher softmax(z*_t)."""
        dpo, anchor = ops.log_softmax(outputs["teacher"]), ops.log_softmax(outputs["anchor"])
        alpha = self.alpha(ops.total_variation(dpo, anchor))
        target = TEACHERS[self.reward](dpo, anchor, alpha[:, None])
        return {"synthetic teacher": target / self.temperature}

    def alpha(self, tvd: torch.Tensor) -> torch.Tensor:
        """[n] extrapolation weight from the TVD [n] of teacher and anchor."""
        if self.extrapolation == "constant" and self.beta:
            return torch.full_like(tvd, self.beta0 / self.beta)
        alpha = (self.r or 0.0) * (DISTANCES[self.tvd] * tvd) + self.epsilon
        return alpha if self.alpha_max is None else alpha.clamp(max=self.alpha_max)

    def loss(self, batch: TextBatch, signals: Signals, state: State) -> Loss:
        """One value per sequence (or token, with reduction: token_mean)."""
        mask, kl = POSITIONS[self.positions](batch), signals["distil/kl"]
        weight = signals["distil/beta_t"] if self.beta_weighting == "per_token" else 1.0
        logged = {n: read(signals[f"distil/{row}"], mask) for n, (_, row, read) in LOGGED.items()}
        return Loss(ops.REDUCTIONS[self.reduction](weight * kl, mask), logged)
