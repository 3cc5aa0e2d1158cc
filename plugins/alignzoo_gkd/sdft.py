"""Self-distillation from a hint: SDFT, arXiv:2601.19897, and OPSD, arXiv:2601.18734."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignzoo import Case, PromptText, TextBatch, option
from alignzoo_gkd.told import SelfDistillation


@dataclass(frozen=True)
class SDFT(SelfDistillation[TextBatch]):
    """L = mean_b 1/n_b sum_t D(pi_teacher(.|hint, s_t), pi(.|s_t)).

    The teacher is the policy itself behind a prompt with a hint: a demonstration, a solution,
    whatever the row's `meta` holds. D is that of `gkd`, by default KL(pi || teacher), over the full
    vocabulary, on the policy's own answers; no gradient through the teacher or the sampling.
    w_teacher <- w_teacher + follow (w_pi - w_teacher) after a step. Source: arXiv:2601.19897, with
    `follow` from summaries of it. Deviation: its estimators that see the sampled token or the most
    probable ones alone are not here. With an empty hint in the template "{hint}{prompt}", and
    follow: 0, it is `gkd`.
    """

    name = "sdft"
    batch = TextBatch
    example_meta = {"hint": "The sky is blue."}

    divergence: Literal["forward", "reverse", "jsd"] = option(
        "reverse", "D: KL(teacher || pi), KL(pi || teacher), or JSD_beta between them"
    )
    hint: str = option("hint", "entry of a row's `meta` that the teacher sees")

    def view(self, name: str, case: Case) -> PromptText:
        """The prompt with the row's hint; KeyError without one, TypeError when it is no text."""
        hint = case.sample.meta[self.hint]
        if not isinstance(hint, str):
            raise TypeError(f"meta.{self.hint} is a {type(hint).__name__}, not a text")
        return self.told(case.sample.prompt, hint)


@dataclass(frozen=True)
class OPSD(SDFT):
    """L = mean_b 1/n_b sum_t D(pi_teacher(.|hint, s_t), pi(.|s_t)).

    SDFT whose teacher stays what the policy was at the start, the hint a solution, and D by default
    JSD. Source: arXiv:2601.18734. Deviation: what its authors add to D, a limit on the share of a
    single token, is not here.
    """

    name = "opsd"

    divergence: Literal["forward", "reverse", "jsd"] = option(
        "jsd", "D: KL(teacher || pi), KL(pi || teacher), or JSD_beta between them"
    )
    follow: float = option(0.0, "share of the policy that the teacher takes on", ge=0, le=1)
