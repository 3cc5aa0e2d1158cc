"""How often a reward agrees with preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignzoo import Column, RewardBenchmark, option


@dataclass(frozen=True)
class Preferences(RewardBenchmark):
    """accuracy = mean over pairs of [r(x, y_w) > r(x, y_l)] + 1/2 [r(x, y_w) = r(x, y_l)].

    Source: arXiv:2503.02832, Table 2, which does not say what a tie counts; `ties` says how many
    there are. A log-ratio is summed over the answer, so that a factor beta changes no accuracy.
    """

    name = "preferences"
    of: str = option("", "what these pairs are, where a recipe measures several sets of pairs")

    def judge_rewards(
        self, chosen: Sequence[float], rejected: Sequence[float]
    ) -> Mapping[str, Column]:
        """One value per pair: 1, 1/2 or 0; whether it is a tie; the difference."""
        pairs = list(zip(chosen, rejected, strict=True))
        return {
            "accuracy": Column(
                tuple((x > y) + 0.5 * (x == y) for x, y in pairs),
                "share of pairs whose chosen answer has the higher reward, ties 1/2",
                better=1,
                whole=1,
            ),
            "ties": Column(
                tuple(float(x == y) for x, y in pairs), "share of pairs with equal rewards", whole=1
            ),
            "margin": Column(
                tuple(x - y for x, y in pairs), "reward of the chosen minus the rejected answer"
            ),
        }
