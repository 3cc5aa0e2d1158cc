"""Self-distillation policy optimisation, arXiv:2601.20802."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from alignzoo import (
    Case,
    GroupBatch,
    Loss,
    Mean,
    Metric,
    PromptText,
    Signal,
    Signals,
    State,
    option,
)
from alignzoo.ops import REDUCTIONS, sequence_mean, sequence_sum
from alignzoo_gkd.told import SelfDistillation


@dataclass(frozen=True)
class SDPO(SelfDistillation[GroupBatch]):
    """L = 1/n_b sum_t D(pi_teacher(.|f, s_t), pi(.|s_t)), mean over failed answers.

    f is the best answer to the same prompt, where it is a success: an answer with a score of at
    least `success`. Answers that succeed themselves, and those to prompts without a success, are
    not learnt from. The teacher is the policy behind a prompt with f; D is that of `gkd`, by
    default KL(pi || teacher); no gradient through the teacher. Source: arXiv:2601.20802, and the
    authors' code, which leaves out the same answers. Deviations: f is the best success and not the
    first, and without feedback in words; the KL of the most probable tokens alone, and importance
    weights for old samples, are not here.
    """

    name = "sdpo"
    batch = GroupBatch
    least_samples = 2
    metrics = SelfDistillation.metrics | {
        "taught": Metric("share of answers that are learnt from", low=0.0),
        "success": Metric("share of answers that succeed", low=0.0),
    }

    divergence: Literal["forward", "reverse", "jsd"] = option(
        "reverse", "D: KL(teacher || pi), KL(pi || teacher), or JSD_beta between them"
    )
    success: float = option(1.0, "least score of an answer that the others may learn from")

    def view(self, name: str, case: Case) -> PromptText:
        """The prompt with the best answer of the group, for those that are learnt from; of an
        answer that nothing else was sampled with, the prompt.
        """
        if not case.scores:
            return case.sample.prompt
        best = max(range(len(case.scores)), key=case.scores.__getitem__)
        if case.scores[case.answer] >= self.success or case.scores[best] < self.success:
            return case.sample.prompt
        return self.told(case.sample.prompt, case.sampled[best].text)

    def taught(self, batch: GroupBatch) -> torch.Tensor:
        """[B] bool: failed answers to prompts with a success."""
        succeeds = batch.by_group(batch.score) >= self.success  # [I, k]
        return (~succeeds & succeeds.any(-1, keepdim=True)).T.flatten()

    def signals(self) -> Mapping[str, Signal]:
        """The divergence, on the answers that are learnt from."""

        def positions(batch: Any) -> torch.Tensor:
            learnt: torch.Tensor = batch.mask & self.taught(batch)[:, None]
            return learnt

        return {"distil": replace(super().signals()["distil"], positions=positions)}

    def loss(self, batch: GroupBatch, signals: Signals, state: State) -> Loss:
        """One value per answer (or token, with reduction: token_mean)."""
        taught, kl = self.taught(batch), signals["distil/kl"]
        mask = batch.mask & taught[:, None]
        term = REDUCTIONS[self.reduction](signals["distil/loss"], mask)
        metrics = {
            "kl_full/teacher_seq": Mean(sequence_sum(kl, mask), taught),
            "kl_full/teacher_token": Mean(sequence_mean(kl, mask), taught),
            "taught": Mean(taught.to(kl)),
            "success": Mean((batch.score >= self.success).to(kl)),
        }
        return Loss(replace(term, weight=taught if term.weight is None else mask), metrics)
