"""Arena-Hard v0.1: two games per question, Bradley-Terry, style control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo import hookimpl
from alignzoo_arena_hard.benchmark import ArenaHard
from alignzoo_arena_hard.control import Controlled, Entrant, StyleModel, regression, style_control
from alignzoo_arena_hard.games import (
    Game,
    Record,
    chance,
    each_game,
    rating,
    record,
    whole_duels,
    win_rate,
)
from alignzoo_arena_hard.intervals import (
    battles,
    controlled_chances,
    interval_2024,
    interval_2025,
    raw_chances,
)
from alignzoo_arena_hard.labels import distinct_labels, last_label
from alignzoo_arena_hard.revisions import REVISIONS, Revision
from alignzoo_arena_hard.style import LENGTH, MARKDOWN, STYLE, Style, style_of

if TYPE_CHECKING:
    from alignzoo import Benchmark

__all__ = [
    "LENGTH",
    "MARKDOWN",
    "REVISIONS",
    "STYLE",
    "ArenaHard",
    "Controlled",
    "Entrant",
    "Game",
    "Record",
    "Revision",
    "Style",
    "StyleModel",
    "battles",
    "chance",
    "controlled_chances",
    "distinct_labels",
    "each_game",
    "interval_2024",
    "interval_2025",
    "last_label",
    "rating",
    "raw_chances",
    "record",
    "register_benchmarks",
    "regression",
    "style_control",
    "style_of",
    "whole_duels",
    "win_rate",
]


@hookimpl
def register_benchmarks() -> list[type[Benchmark]]:
    """Arena-Hard v0.1."""
    return [ArenaHard]
