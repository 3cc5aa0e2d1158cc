"""Putting a benchmark's questions to a judge, and losing nothing of what it says."""

from __future__ import annotations

from alignzoo.judging.ask import Patience, ask, meet
from alignzoo.judging.journal import Journal, journal_folder, open_journal
from alignzoo.judging.read import Judged, Spent, read, score
from alignzoo.judging.vote import panel
from alignzoo.judging.work import Standing

__all__ = [
    "Journal",
    "Judged",
    "Patience",
    "Spent",
    "Standing",
    "ask",
    "journal_folder",
    "meet",
    "open_journal",
    "panel",
    "read",
    "score",
]
