"""What every library is asked for: to hold the curves of one stage, and a run's files."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from alignzoo import Metric


@dataclass(frozen=True)
class Series:
    """The curves of one stage, or what belongs to the run as a whole."""

    id: str  # another one for every training; the same when a training goes on
    project: str  # the recipe's name
    group: str  # the run's folder
    name: str  # the stage
    folder: Path  # of the run; local files go to `trackers/` in it
    config: Mapping[str, Any]
    metrics: Mapping[str, Metric]  # as declared: "kl_full/ROLE" stands for any role
    parent: str | None = None  # of a stage: the id of its run's own series

    def meaning(self, name: str) -> str:
        """What a metric is and its unit, or an empty string where nobody declares it."""
        general = (n for n in self.metrics if n.endswith(("/NAME", "/ROLE")))
        prefix = next((n for n in general if name.startswith(n.partition("/")[0] + "/")), "")
        metric = self.metrics.get(name) or self.metrics.get(prefix)
        if metric is None:
            return ""
        return f"{metric.doc} [{metric.unit}]" if metric.unit else metric.doc


class Line(Protocol):
    """An open series in a library. Every method may raise whatever the library raises."""

    def held(self, metric: str) -> int:
        """The last step of a metric that the library has from an earlier process; -1: none."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of one step."""
        ...

    def attach(self, files: Sequence[Path]) -> None:
        """Keep files beside the curves."""
        ...

    def close(self, *, failed: bool) -> None:
        """Bring everything to where it belongs."""
        ...


class Opener(Protocol):
    """Opens a series; the same id again goes on with it."""

    def __call__(self, series: Series) -> Line:
        """The line of a series."""
        ...


def absent(*modules: str) -> str:
    """Which of the modules that a tracker needs are not installed, and the line that does."""
    gone = [name for name in modules if importlib.util.find_spec(name) is None]
    if not gone:
        return ""
    return f"{' and '.join(gone)} cannot be imported; pip install 'alignzoo[trackers]'"
