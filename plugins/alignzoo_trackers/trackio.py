"""trackio: the local dashboard of Hugging Face, or a Space."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo import Tracker, option
from alignzoo_trackers.series import Series, absent
from alignzoo_trackers.watching import Watcher


@dataclass(frozen=True)
class Trackio(Tracker):
    """A trackio run per stage in one group; `trackio show` opens the dashboard.

    Everything stays in `$TRACKIO_DIR` unless `space` names a Space of Hugging Face. The meaning
    and unit of every declared metric stand in the run's config, under `metrics`.
    """

    name = "trackio"
    project: str | None = option(None, "null: the recipe's name")
    space: str | None = option(None, "USER/SPACE to send to; null: nothing is sent")

    def lacks(self) -> str:
        """The library."""
        return absent("trackio")

    def watch(self) -> Watcher:
        """A watcher that logs to trackio."""
        return Watcher(self.name, lambda series: Logged(series, self))


@dataclass
class Logged:
    """One trackio run. The library hides its failures, so what it has is counted at the end."""

    series: Series
    settings: Trackio
    run: Any = field(init=False)
    last: int = -1
    given: int = 0  # rows of this process
    before: int = 0  # rows of earlier ones

    def __post_init__(self) -> None:
        """Start or resume the run of this name."""
        import trackio

        series, project = self.series, self.settings.project or self.series.project
        meanings = {name: series.meaning(name) for name in series.metrics}
        with contextlib.redirect_stdout(io.StringIO()):
            self.run = trackio.init(
                project,
                name=f"{series.group}/{series.name}-{series.id[:6]}",
                group=series.group,
                space_id=self.settings.space,
                config={**series.config, "metrics": meanings},
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self.before = self._count()
        last = self._storage().get_last_step(project, run_id=self.run.id) if self.before else None
        self.last = -1 if last is None else int(last)

    def held(self, metric: str) -> int:
        """The last step that the local store has."""
        return self.last

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row."""
        self.run.log(dict(values), step=step)
        self.given += 1

    def attach(self, files: Sequence[Path]) -> None:
        """One artefact with all files."""
        import trackio

        artifact = trackio.Artifact(f"{self.series.group}-results", type="results")
        for file in files:
            artifact.add_file(file)
        self.run.log_artifact(artifact)

    def close(self, *, failed: bool) -> None:
        """Wait for the library's thread, and compare what it has with what it was given.

        Raises RuntimeError when rows are missing: the library itself only warns.
        """
        import trackio

        with contextlib.redirect_stdout(io.StringIO()):
            trackio.finish()
        missing = self.before + self.given - self._count()
        if self.settings.space is None and missing:
            raise RuntimeError(f"trackio lost {missing} of {self.given} rows")

    def _count(self) -> int:
        if self.settings.space is not None:
            return 0
        project = self.settings.project or self.series.project
        return int(self._storage().get_log_count(project, run_id=self.run.id))

    def _storage(self) -> Any:
        from trackio.sqlite_storage import SQLiteStorage

        return SQLiteStorage
