"""The benchmark: held-out questions, judged by the oracle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from alignzoo import Answer, Column, Judge, PromptSample, ScoredBenchmark, option
from alignzoo_facts.data import HeldOutPrompts
from alignzoo_facts.oracle import FEATURES, Oracle
from alignzoo_facts.world import HELD_OUT_SIZE

MEANINGS: Mapping[str, tuple[str, int]] = {
    "true_reward": ("exact reward R of facts.oracle, mean over samples", 1),
    **FEATURES,
}


@dataclass(frozen=True)
class Facts(ScoredBenchmark):
    """True reward, and win rate against a baseline, on questions kept from training.

    Every prompt counts once: its samples are averaged first, so the prompt is the unit of the
    interval. Columns beside win_rate, true_reward and length are the counts R is made of.
    """

    name = "facts"
    score_name = "true_reward"
    size: int = option(300, "number of held-out questions", gt=0, le=HELD_OUT_SIZE)

    def prompts(self, seed: int) -> Iterable[PromptSample]:
        """The questions of facts.test."""
        return HeldOutPrompts(self.size).samples(seed)

    def judge(self) -> Judge:
        """The oracle."""
        return Oracle()

    def measure(
        self,
        answers: Sequence[Sequence[Answer]],
        baseline: Sequence[Sequence[Answer]] | None,
    ) -> Mapping[str, Column]:
        """The columns of every scored benchmark, with this world's meanings."""
        return {
            name: _described(name, column)
            for name, column in super().measure(answers, baseline).items()
        }


def _described(name: str, column: Column) -> Column:
    if name not in MEANINGS:
        return column
    doc, better = MEANINGS[name]
    return replace(column, doc=doc, better=better)
