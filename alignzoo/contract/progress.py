"""What a run tells whoever watches it; the console and the tests implement it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Receives events in order, on rank 0 only. `index` counts from 1."""

    def stage_started(self, name: str, index: int, total: int) -> None:
        """A stage (or the evaluation of one model) begins or resumes."""
        ...

    def stage_reused(self, name: str, index: int, total: int) -> None:
        """A stage was finished before with the same inputs."""
        ...

    def step(
        self,
        stage: str,
        step: int,
        total: int,
        metrics: Mapping[str, float],
        timing: Mapping[str, float],
    ) -> None:
        """`step` of `total` units of work are done; a total of 0 is unknown."""
        ...

    def stage_finished(self, name: str) -> None:
        """A stage has left its result."""
        ...

    def note(self, text: str) -> None:
        """A sentence worth reading: a warning, a count, a reason."""
        ...


class Silent:
    """Progress that shows nothing."""

    def stage_started(self, name: str, index: int, total: int) -> None:
        """Show nothing."""

    def stage_reused(self, name: str, index: int, total: int) -> None:
        """Show nothing."""

    def step(
        self,
        stage: str,
        step: int,
        total: int,
        metrics: Mapping[str, float],
        timing: Mapping[str, float],
    ) -> None:
        """Show nothing."""

    def stage_finished(self, name: str) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""
