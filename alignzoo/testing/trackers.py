"""The promises of a tracker, tried on a run that is cut and goes on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.contract.algorithm import Metric
from alignzoo.contract.tracker import Tracker
from alignzoo.recipe.registry import hooks_of
from alignzoo.testing.checks import (
    Check,
    Trial,
    documented,
    explained,
    raise_broken,
    require,
    survive_yaml,
    try_all,
)

RECIPE = {"name": "alignzoo-check", "seed": 0, "stages": [{"name": "toy"}]}
METRICS = {"toy": {"loss": Metric("a loss", "nats")}}


def check_tracker(tracker: Tracker) -> None:
    """Raise PluginError with every promise of the contract that a tracker breaks."""
    raise_broken(tracker.name, run_tracker_checks(tracker))


def run_tracker_checks(tracker: Tracker) -> list[Check]:
    """Follow a run in a temporary folder; whatever the options reach is reached."""
    return try_all(_promises(tracker), tracker, "watch")


def _promises(tracker: Tracker) -> Iterator[tuple[str, Trial]]:
    yield "docstring", lambda: documented(tracker)
    yield "options are frozen and survive YAML", lambda: survive_yaml(tracker)
    yield "options are explained", lambda: explained(tracker)
    yield "it lacks nothing here", lambda: _whole(tracker)
    yield "it follows a run that is cut and goes on", lambda: _followed(tracker)
    yield "it changes no file of a stage", lambda: _unchanged(tracker)


def _whole(tracker: Tracker) -> str:
    lacking = tracker.lacks()
    require(not lacking, lacking)
    return ""


def _followed(tracker: Tracker) -> str:
    with tempfile.TemporaryDirectory() as folder:
        toy = _Toy(Path(folder))
        toy.cut(tracker)
        toy.finish(tracker)
        toy.again(tracker)
    return ""


def _unchanged(tracker: Tracker) -> str:
    with tempfile.TemporaryDirectory() as folder:
        toy = _Toy(Path(folder))
        toy.cut(tracker)
        toy.finish(tracker)
        before = toy.expected()
        toy.again(tracker)
        changed = [name for name, x in before.items() if toy.files().get(name) != x]
        require(not changed, f"{', '.join(changed)} changed")
        new = sorted(toy.files().keys() - before.keys())
        require(not new, f"{', '.join(new)} lies there since")
    return ""


@dataclass(frozen=True)
class _Toy:
    """A run's folder with one stage of three steps, all of them logged."""

    run: Path

    @property
    def stage(self) -> Path:
        """The stage's folder."""
        return self.run / "stages" / "01-toy"

    def cut(self, tracker: Tracker) -> None:
        """The first process ends after two steps."""
        self.stage.mkdir(parents=True)
        (self.stage / "stage.json").write_text(json.dumps({"identity": "1"}))
        watcher = self._started(tracker)
        for step in (1, 2):
            self._step(watcher, step)
        watcher.on_run_end(run=self.run, error=KeyboardInterrupt())

    def finish(self, tracker: Tracker) -> None:
        """The second one repeats a step, as from a checkpoint, and comes to the end."""
        watcher = self._started(tracker)
        log = self.stage / "metrics.jsonl"
        log.write_text(log.read_text().splitlines()[0] + "\n")
        for step in (2, 3):
            self._step(watcher, step)
        self._ended(watcher, reused=False)

    def again(self, tracker: Tracker) -> None:
        """The third process reuses the stage."""
        self._ended(self._started(tracker), reused=True)

    def expected(self) -> dict[str, bytes]:
        """What the stage has written itself."""
        rows = "".join(_row(step) for step in (1, 2, 3))
        own = {"stage.json": json.dumps({"identity": "1"}), "metrics.jsonl": rows}
        return {f"stages/01-toy/{name}": text.encode() for name, text in own.items()}

    def files(self) -> dict[str, bytes]:
        """What the stages hold."""
        every = (file for file in (self.run / "stages").rglob("*") if file.is_file())
        return {str(file.relative_to(self.run)): file.read_bytes() for file in every}

    def _started(self, tracker: Tracker) -> Any:
        hooks = hooks_of(tracker.name, tracker.watch())
        hooks.on_run_start(run=self.run, recipe=RECIPE, metrics=METRICS)
        return hooks

    def _step(self, watcher: Any, step: int) -> None:
        with (self.stage / "metrics.jsonl").open("a") as log:
            log.write(_row(step))
        metrics = {"loss": 1 / step}
        watcher.on_step(run=self.run, stage="toy", step=step, metrics=metrics)

    def _ended(self, watcher: Any, *, reused: bool) -> None:
        watcher.on_stage_end(run=self.run, stage="toy", folder=self.stage, reused=reused)
        watcher.on_run_end(run=self.run, error=None)


def _row(step: int) -> str:
    return json.dumps({"step": step, "loss": 1 / step}) + "\n"
