"""The two programs that upstream published for Arena-Hard v0.1, as values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from alignzoo_arena_hard.control import StyleModel
from alignzoo_arena_hard.games import Counting, Game, each_game, whole_duels
from alignzoo_arena_hard.labels import FIVE, TEN, Label, distinct_labels, last_label
from alignzoo_arena_hard.style import density, relative

TENFOLD = math.log(10)  # beta is then a rating in units of 400 points


@dataclass(frozen=True)
class Revision:
    """How replies are read and verdicts counted."""

    labels: Callable[[str], tuple[str, ...]]  # those a reply contains
    known: Mapping[str, Label]
    attempts: int  # replies per game: one without a label is followed up
    counting: Counting
    style: StyleModel

    def game(self, label: str | None, candidate: int, weight: float) -> Game | None:
        """The outcome for the candidate that was shown at this place (0 A, 1 B).

        None for a label that means nothing here.
        """
        found = self.known.get(label or "")
        if found is None:
            return None
        value = found.first if candidate == 0 else 1 - found.first
        return Game(value, weight if found.strong else 1.0)


REVISIONS: Mapping[str, Revision] = {
    "2024": Revision(
        labels=distinct_labels,
        known=FIVE,
        attempts=2,
        counting=each_game,
        style=StyleModel(relative, TENFOLD, penalty=1.0, copies=2, ddof=0),
    ),
    "2025": Revision(
        labels=last_label,
        known=TEN,
        attempts=1,
        counting=whole_duels,
        style=StyleModel(density, 1.0, penalty=0.0, copies=1, ddof=1),
    ),
}
