"""Weights & Biases: a run per stage, in a group of the alignzoo run's name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignzoo import Tracker, option
from alignzoo_trackers.series import Series, absent
from alignzoo_trackers.watching import Watcher


@dataclass(frozen=True)
class WandB(Tracker):
    """A wandb run per stage in one group; offline ones wait in `RUN/trackers` for `wandb sync`.

    The meaning and unit of every declared metric stand in the run's config, under `metrics`.
    """

    name = "wandb"
    example_options = {"mode": "offline"}
    mode: Literal["online", "offline"] = option("online", "whether anything is sent")
    entity: str | None = option(None, "user or team; null: your default")
    project: str | None = option(None, "null: the recipe's name")

    def lacks(self) -> str:
        """The library, or the key that sending needs."""
        if gone := absent("wandb"):
            return gone
        if self.mode == "online" and os.environ.get("WANDB_MODE") != "offline" and not _key():
            return "no API key; `wandb login`, or `{name: wandb, with: {mode: offline}}`"
        return ""

    def watch(self) -> Watcher:
        """A watcher that logs to wandb."""
        return Watcher(self.name, lambda series: Logged(series, self))


def _key() -> str:
    """The key that wandb would use; it is only looked for."""
    import wandb

    return str(wandb.api.api_key or "")


@dataclass
class Logged:
    """One wandb run. A step that it has is not logged again; offline it starts anew."""

    series: Series
    settings: WandB
    run: Any = field(init=False)

    def __post_init__(self) -> None:
        """Start or resume the run of this id."""
        import wandb

        series = self.series
        mode = "offline" if os.environ.get("WANDB_MODE") == "offline" else self.settings.mode
        meanings = {name: series.meaning(name) for name in series.metrics}
        place = series.folder / "trackers"
        place.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            entity=self.settings.entity,
            project=self.settings.project or series.project,
            group=series.group,
            name=series.name,
            id=series.id,
            config={**series.config, "metrics": meanings},
            dir=str(place),
            mode=mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )

    def held(self, metric: str) -> int:
        """The last step that the server has; offline there is none to ask."""
        return int(self.run.starting_step) - 1

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row of the history."""
        self.run.log(dict(values), step=step)

    def attach(self, files: Sequence[Path]) -> None:
        """One artefact of type `results`."""
        import wandb

        artifact = wandb.Artifact(f"{self.series.group}-results", type="results")
        for file in files:
            artifact.add_file(str(file))
        self.run.log_artifact(artifact)

    def close(self, *, failed: bool) -> None:
        """Wait until wandb has everything."""
        self.run.finish(exit_code=int(failed))
