"""The contract of a tracker: it copies what a run measures to where people look at curves.

A recipe chooses trackers by name (`trackers: [NAME]`). They watch through the observing hooks, so
they can neither change training nor stop it, and `metrics.jsonl` is complete without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class Tracker:
    """Base of trackers: a frozen dataclass of options. They enter no stage's identity."""

    name: ClassVar[str]
    example_options: ClassVar[Mapping[str, Any]] = {}  # for `alignzoo check`: reaching no network

    def lacks(self) -> str:
        """What it needs and does not have here, and how to get it; an empty string: nothing.

        Asked before the first stage, by `plan` too; a tracker that lacks something stops the run.
        """
        return ""

    def watch(self) -> object:
        """Whoever follows one run: an object whose methods are observing hooks (`@hookimpl`)."""
        raise TypeError(f"{type(self).__name__} defines no watch")
