"""MLflow: an MLflow run per stage, below one of the alignzoo run."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo import Tracker, option
from alignzoo_trackers.series import Series, absent
from alignzoo_trackers.watching import Watcher

MOST = 800  # metrics of one request; a server takes 1,000
PATIENCE = 2.0  # seconds that points wait for others
ID, PARENT = "alignzoo.id", "mlflow.parentRunId"


@dataclass(frozen=True)
class MLflow(Tracker):
    """Runs in the experiment of the recipe's name, of which each stage is one with its own curves.

    Where neither `uri` nor `$MLFLOW_TRACKING_URI` says otherwise, they are in
    `RUN/trackers/mlflow.db`, which `mlflow ui --backend-store-uri sqlite:///FILE` shows (the whole
    of mlflow, which the extra does not install). Units stand in the note of each run.
    """

    name = "mlflow"
    uri: str | None = option(None, "tracking server or database; null: $MLFLOW_TRACKING_URI")
    experiment: str | None = option(None, "null: the recipe's name")

    def lacks(self) -> str:
        """The library and, for a local database, what reads one."""
        local = not (self.uri or os.environ.get("MLFLOW_TRACKING_URI"))
        return absent("mlflow", *(("sqlalchemy", "alembic") if local else ()))

    def watch(self) -> Watcher:
        """A watcher that logs to MLflow."""
        return Watcher(self.name, lambda series: Logged(series, self))


@dataclass
class Logged:
    """One MLflow run, found again by its tag. Points are sent some at a time."""

    series: Series
    settings: MLflow
    client: Any = field(init=False)
    run: str = field(init=False)
    last: dict[str, int] = field(default_factory=dict)  # metric -> the last step held
    resumed: bool = False
    waiting: list[Any] = field(default_factory=list)
    since: float = 0.0

    def __post_init__(self) -> None:
        """Find the run with this id, or make one."""
        from mlflow import MlflowClient

        # That tables are made is no news to who reads a run.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        store = self.settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
        folder = (self.series.folder / "trackers").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(tracking_uri=store or f"sqlite:///{folder / 'mlflow.db'}")
        name = self.settings.experiment or self.series.project
        experiment = self._experiment(name, None if store else f"file://{folder / 'mlflow'}")
        found = self._found(experiment, self.series.id)
        self.resumed = found is not None
        self.run = found or self._made(experiment)

    def held(self, metric: str) -> int:
        """The last step of a metric that a resumed run has."""
        if not self.resumed:
            return -1
        if metric not in self.last:
            points = self.client.get_metric_history(self.run, _key(metric))
            self.last[metric] = max((point.step for point in points), default=-1)
        return self.last[metric]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the values, and send them with others."""
        from mlflow.entities import Metric

        now = time.time()
        self.since = self.since or now
        self.waiting += [Metric(_key(k), x, int(now * 1000), step) for k, x in values.items()]
        if len(self.waiting) >= MOST or now - self.since > PATIENCE:
            self._send()

    def attach(self, files: Sequence[Path]) -> None:
        """Artefacts of the run."""
        for file in files:
            self.client.log_artifact(self.run, str(file))

    def close(self, *, failed: bool) -> None:
        """Send what waits and say how it ended."""
        self._send()
        self.client.set_terminated(self.run, "FAILED" if failed else "FINISHED")

    def _send(self) -> None:
        while self.waiting:
            self.client.log_batch(self.run, metrics=self.waiting[:MOST])
            del self.waiting[:MOST]
        self.since = 0.0

    def _experiment(self, name: str, place: str | None) -> str:
        known = self.client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        return str(self.client.create_experiment(name, artifact_location=place))

    def _found(self, experiment: str, mark: str) -> str | None:
        runs = self.client.search_runs([experiment], f"tags.`{ID}` = '{mark}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _made(self, experiment: str) -> str:
        """A new run; that of a stage lies below the one of its group."""
        series = self.series
        tags = {ID: series.id, "alignzoo.run": series.group, "mlflow.note.content": _note(series)}
        if series.parent is not None:
            tags[PARENT] = self._parent(experiment, series.parent)
        made = self.client.create_run(experiment, run_name=series.name, tags=tags)
        self.client.log_dict(made.info.run_id, dict(series.config), "config.json")
        return str(made.info.run_id)

    def _parent(self, experiment: str, mark: str) -> str:
        if found := self._found(experiment, mark):
            return found
        tags = {ID: mark, "alignzoo.run": self.series.group}
        made = self.client.create_run(experiment, run_name=self.series.group, tags=tags)
        return str(made.info.run_id)


def _note(series: Series) -> str:
    """The meaning and unit of every declared metric, as the run's description."""
    return "\n".join(f"- `{name}`: {series.meaning(name)}" for name in series.metrics)


def _key(metric: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w\-. /:]", "_", metric)
