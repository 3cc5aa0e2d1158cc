"""Which of two outputs the official program shows first."""

from __future__ import annotations

import random

BOTH = (0, 1)


def candidate_first(instruction: str, seed: int = 0) -> bool:
    """Whether the candidate's output is shown first.

    The first draw of a fair coin from Python's generator, seeded by the text
    "is_switched_outputs" + instruction + seed. It depends on the instruction alone, so every
    candidate is shown in the same place. Source: alpaca_eval 0.6.6.
    """
    coin = random.Random("is_switched_outputs" + instruction + str(seed))
    return coin.choices([False, True])[0]


def official_place(instruction: str) -> tuple[int, ...]:
    """The one place of the candidate that the official program asks about."""
    return (0,) if candidate_first(instruction) else (1,)


def every_place(instruction: str) -> tuple[int, ...]:
    """Both places, whatever the instruction: two questions per pair."""
    return BOTH
