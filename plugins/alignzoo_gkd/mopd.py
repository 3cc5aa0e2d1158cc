"""Distillation from two teachers by row, arXiv:2606.30406."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from alignzoo import (
    DataError,
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
    World,
    option,
)
from alignzoo_gkd.algorithm import Distillation

TEACHERS = ("teacher_0", "teacher_1")


@dataclass(frozen=True)
class Taught(TextBatch):
    """Answers, and whose they are to learn from."""

    teacher: torch.Tensor  # [I] float32: 0 or 1


@dataclass(frozen=True)
class MOPD(Distillation[Taught]):
    """L = mean_b 1/n_b sum_t D(pi_k(.|s_t), pi(.|s_t)), k the teacher of row b.

    D is that of `gkd`, by default KL(pi || pi_k), over the full vocabulary, on the student's own
    answers with a `rollout:` block. A row says who teaches it: `teacher: 0` or `1` in its `meta`. A
    teacher is run on its own rows alone. Source: multi-teacher on-policy distillation,
    arXiv:2606.30406: teachers of several domains, each for the prompts of its own. Deviations: two
    teachers; the full vocabulary in place of the sampled token or the teacher's most probable ones.
    """

    name = "mopd"
    batch = Taught
    roles = {
        "policy": Role(trainable=True, doc="the student"),
        "teacher_0": Role(doc="teaches rows with teacher: 0; with the same vocabulary"),
        "teacher_1": Role(doc="teaches rows with teacher: 1"),
    }
    metrics = Distillation.metrics | {"teacher_1": Metric("share of rows that it teaches", low=0.0)}

    divergence: Literal["forward", "reverse", "jsd"] = option(
        "reverse", "D: KL(teacher || pi), KL(pi || teacher), or JSD_beta between them"
    )

    def signals(self) -> Mapping[str, Signal]:
        """The divergence from either teacher, each on its own rows."""
        return {role: self.of(role, k) for k, role in enumerate(TEACHERS)}

    def of(self, role: str, k: int) -> Signal:
        """The divergence from one teacher."""

        def rows(outputs: Outputs, labels: torch.Tensor) -> Mapping[str, torch.Tensor]:
            return self.rows({"policy": outputs["policy"], "teacher": outputs[role]}, labels)

        def closed(
            outputs: Outputs, labels: torch.Tensor, scratch: Scratch, wanted: Collection[str]
        ) -> tuple[Mapping[str, torch.Tensor], Outputs]:
            return self.derived(role, scratch, wanted)

        def positions(batch: Any) -> torch.Tensor:
            own: torch.Tensor = batch.mask & (batch.teacher == k)[:, None]
            return own

        return Signal(("policy", role), rows, positions, closed=closed)

    def prepare(self, batch: Taught, signals: Signals, world: World) -> Signals:
        """Nothing; DataError for a row without a teacher, of which nothing would be learnt."""
        odd = batch.teacher[(batch.teacher != 0) & (batch.teacher != 1)]
        if len(odd):
            raise DataError(f"mopd: a row has meta.teacher {odd[0].item():g}; give it 0 or 1")
        return {}

    def loss(self, batch: Taught, signals: Signals, state: State) -> Loss:
        """One value per sequence (or token, with reduction: token_mean)."""
        first, second = ({x: signals[f"{role}/{x}"] for x in ("loss", "kl")} for role in TEACHERS)
        found = super().loss(batch, {f"distil/{x}": first[x] + second[x] for x in first}, state)
        return Loss(found.terms, {**found.metrics, "teacher_1": Mean(batch.teacher)})
