"""Generalised knowledge distillation, arXiv:2306.13649."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from alignzoo import (
    Algorithm,
    Batch,
    Loss,
    Mean,
    Metric,
    Outputs,
    Role,
    Scratch,
    Signal,
    Signals,
    State,
    TextBatch,
    option,
)
from alignzoo.ops import (
    REDUCTIONS,
    Between,
    jsd,
    kl_divergence,
    log_softmax,
    sequence_mean,
    sequence_sum,
)

# Log-probabilities [n, V] of teacher and student and the weight beta -> [n].
DIVERGENCES: Mapping[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "forward": lambda teacher, student, _: kl_divergence(teacher, student),
    "reverse": lambda teacher, student, _: kl_divergence(student, teacher),
    "jsd": jsd,
}


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Distillation(Algorithm[B]):
    """L = mean_b 1/n_b sum_t D(pi_teacher(.|s_t), pi(.|s_t)), D over the full vocabulary."""

    metrics = {
        "kl_full/teacher_seq": Metric(
            "full KL(policy || teacher), sum over a response", "nats", 0.0
        ),
        "kl_full/teacher_token": Metric("the same, mean over a response's tokens", "nats", 0.0),
    }

    divergence: Literal["forward", "reverse", "jsd"] = option(
        "jsd", "D: KL(teacher || pi), KL(pi || teacher), or JSD_beta between them"
    )
    beta: float = option(0.5, "jsd: weight of the teacher in the mixture, below 1", gt=0, le=1)
    temperature: float = option(1.0, "divides the logits of both", gt=0)
    reduction: Literal["sequence_mean", "sequence_sum", "token_mean"] = option(
        "sequence_mean", "1/n_b sum_t, sum_t, or the mean over all tokens alike"
    )

    def __post_init__(self) -> None:
        """The mixture has two parts."""
        if self.beta >= 1:
            raise ValueError("beta must be below 1: for KL(teacher || pi) set divergence: forward")

    def signals(self) -> Mapping[str, Signal]:
        """The divergence with gradient, and the KL to look at."""
        return {"distil": Signal(("policy", "teacher"), self.rows, closed=self.closed)}

    def rows(self, outputs: Outputs, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """[n] rows from logits [n, V]."""
        teacher = log_softmax(outputs["teacher"] / self.temperature)
        student = log_softmax(outputs["policy"] / self.temperature)
        with torch.no_grad():
            seen = kl_divergence(log_softmax(outputs["policy"]), log_softmax(outputs["teacher"]))
        return {"loss": DIVERGENCES[self.divergence](teacher, student, self.beta), "kl": seen}

    def closed(
        self, outputs: Outputs, labels: torch.Tensor, scratch: Scratch, wanted: Collection[str]
    ) -> tuple[dict[str, torch.Tensor], Outputs]:
        """The same rows and the gradient of the first, a few positions at a time."""
        return self.derived("teacher", scratch, wanted)

    def derived(
        self, teacher: str, scratch: Scratch, wanted: Collection[str]
    ) -> tuple[dict[str, torch.Tensor], Outputs]:
        """The same from a teacher's role."""
        kl, _ = Between("policy", teacher).kl(scratch)
        ends = ("policy", teacher) if self.divergence == "reverse" else (teacher, "policy")
        between = Between(*ends, self.temperature)
        if self.divergence == "jsd":
            loss, gradient = between.jsd(self.beta, scratch, wanted)
        else:
            loss, gradient = between.kl(scratch, wanted)
        return {"loss": loss, "kl": kl}, gradient

    def loss(self, batch: B, signals: Signals, state: State) -> Loss:
        """One value per sequence (or token, with reduction: token_mean)."""
        mask, kl = batch.mask, signals["distil/kl"]
        term = REDUCTIONS[self.reduction](signals["distil/loss"], mask)
        metrics = {
            "kl_full/teacher_seq": Mean(sequence_sum(kl, mask)),
            "kl_full/teacher_token": Mean(sequence_mean(kl, mask)),
        }
        return Loss(term, metrics)


@dataclass(frozen=True)
class GKD(Distillation[TextBatch]):
    """L = mean_b 1/n_b sum_t D(pi_teacher(.|s_t), pi(.|s_t)).

    D is KL(teacher || pi), KL(pi || teacher) or JSD_beta, over the full vocabulary; the gradient
    goes through D alone, not through the sampling. Source: arXiv:2306.13649 Section 2 and Alg. 1;
    reverse on the student's samples: arXiv:2306.08543. Fed with a dataset it is supervised
    distillation, with a `rollout:` block the on-policy one. Deviation: `rollout.share`, the paper's
    lambda, draws every prompt's answer from either and not every batch.
    """

    name = "gkd"
    batch = TextBatch
    roles = {
        "policy": Role(trainable=True, doc="the student"),
        "teacher": Role(doc="the model to imitate, with the same vocabulary"),
    }
