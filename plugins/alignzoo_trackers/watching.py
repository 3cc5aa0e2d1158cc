"""Follow one run and give a library what `metrics.jsonl` has: each point once, none left out.

The file is the truth. A stage's first step in a process, and its end, compare what the library
holds with the file, so points are neither doubled by a resume nor lost by a failure: after one
nothing more is sent before the stage's end, where everything that is missing is tried again.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from alignzoo import AlignzooError, Metric, hookimpl
from alignzoo_trackers.series import Line, Opener, Series

RESULTS = ("leaderboard.md", "scores.jsonl")  # attached at the end
REPORT = ("report.html", "report.json")  # and these with them; they say how long pieces took
LOG = "metrics.jsonl"
WHOLE = "run results"  # the series of the run itself; a stage's name has no space
MARK = ""  # in the note: what makes ids unique


class TrackerError(AlignzooError):
    """A library did not take what it was given; the training goes on, its file is complete."""


@dataclass
class Watcher:
    """The state of one run's copying. One stage is open at a time."""

    tracker: str
    opener: Opener
    recipe: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    open: dict[str, Line] = field(default_factory=dict)  # stage -> its line
    behind: set[str] = field(default_factory=set)  # stages that get the rest at their end

    @hookimpl
    def on_run_start(
        self, run: Path, recipe: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Metric]]
    ) -> None:
        """Remember what the curves will be called."""
        self.recipe, self.metrics = recipe, metrics

    @hookimpl
    def on_step(self, run: Path, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Give one point, and at a stage's first one those that came before."""
        if stage in self.behind:
            return
        try:
            if stage not in self.open:
                folder = folder_of(run, stage)
                self.open[stage] = self.opener(self._series(run, stage, identity_of(folder)))
                self._copy(stage, ((n, row) for n, row in rows(folder / LOG) if n < step))
            self._log(stage, step, metrics)
        except Exception as error:
            self.behind.add(stage)
            rest = "the rest of the stage is sent at its end"
            raise TrackerError(self._said(error, rest)) from error

    @hookimpl
    def on_stage_end(self, run: Path, stage: str, folder: Path, reused: bool) -> None:
        """Give what the file has and the library has not, and close the stage's curves."""
        found, identity = list(rows(folder / LOG)), identity_of(folder)
        if not found or (stage not in self.open and self._note(run).get(stage) == identity):
            return
        try:
            line = self.open.get(stage)
            if line is None or stage in self.behind:
                self._drop(stage)
                self.open[stage] = self.opener(self._series(run, stage, identity))
                self._copy(stage, found)
            self.open.pop(stage).close(failed=False)
        except Exception as error:
            self._drop(stage)
            rest = "`alignzoo run` with the same recipe sends what is missing"
            raise TrackerError(self._said(error, rest)) from error
        self.behind.discard(stage)
        self._write(run, {**self._note(run), stage: identity})

    @hookimpl
    def on_run_end(self, run: Path, error: BaseException | None) -> None:
        """Attach the results, and close what a failure left open."""
        for stage in list(self.open):
            self.open.pop(stage).close(failed=True)
        files = [run / name for name in RESULTS if (run / name).is_file()]
        content = _hashed("".join(file.read_text(encoding="utf-8") for file in files))
        if error is not None or not files or self._note(run).get(WHOLE) == content:
            return
        pages = [run / name for name in REPORT if (run / name).is_file()]
        line = self.opener(self._series(run, WHOLE, ""))
        try:
            line.attach([*files, *pages])
        finally:
            line.close(failed=False)
        self._write(run, {**self._note(run), WHOLE: content})

    def _copy(self, stage: str, found: Iterator[tuple[int, Any]] | list[tuple[int, Any]]) -> None:
        for step, values in found:
            self._log(stage, step, values)

    def _log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        line = self.open[stage]
        new = {name: x for name, x in numbers(values).items() if step > line.held(name)}
        if new:
            line.log(step, new)

    def _drop(self, stage: str) -> None:
        """Give up a line that failed; what it says now is no news."""
        line = self.open.pop(stage, None)
        if line is None:
            return
        try:
            line.close(failed=True)
        except Exception:  # it has failed already, and was reported
            return

    def _said(self, error: Exception, rest: str) -> str:
        what = " ".join(str(error).split())
        said = f"{type(error).__name__}{': ' if what else ''}{what}"
        return f"{self.tracker} did not take a metric ({said}); {LOG} has them all, and {rest}"

    def _series(self, run: Path, stage: str, identity: str) -> Series:
        mark = self._mark(run)
        stages = {block["name"]: block for block in self.recipe.get("stages", ())}
        own = {"stage": stages[stage]} if stage in stages else {"recipe": self.recipe}
        declared = self.metrics.get(stage, {})
        return Series(
            id=_hashed(f"{mark} {stage} {identity}") if identity else _hashed(mark),
            project=str(self.recipe.get("name", run.name)),
            group=run.resolve().name,
            name=stage,
            parent=_hashed(mark) if identity else None,
            folder=run,
            config={**own, "seed": self.recipe.get("seed"), "alignzoo_run": run.resolve().name},
            metrics=declared,
        )

    # What outlives the process: a mark that makes ids unique, and the stages that are complete.

    def _note(self, run: Path) -> dict[str, str]:
        try:
            found = json.loads(self._file(run).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _mark(self, run: Path) -> str:
        note = self._note(run)
        if MARK not in note:
            note = note | {MARK: uuid.uuid4().hex}
            self._write(run, note)
        return note[MARK]

    def _write(self, run: Path, note: Mapping[str, str]) -> None:
        file = self._file(run)
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.tmp")
        draft.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        draft.replace(file)

    def _file(self, run: Path) -> Path:
        return run / "trackers" / f"{self.tracker}.json"


def _hashed(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def rows(log: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(step, values) of every complete line; a line without a step is counted."""
    if not log.exists():
        return
    with log.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith("\n"):
                row = json.loads(line)
                yield int(row.pop("step", number)), row


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What has a curve: finite numbers; a step is where, not what."""
    return {
        name: float(x)
        for name, x in values.items()
        if name != "step" and isinstance(x, int | float) and math.isfinite(x)
    }


def folder_of(run: Path, stage: str) -> Path:
    """Where a stage that is running writes."""
    found = (f for f in run.glob("stages/*") if f.name.partition("-")[2] == stage)
    return next(found, run / "stages" / stage)


def identity_of(folder: Path) -> str:
    """What the work in a folder is known by; another training of one name has another."""
    try:
        return str(json.loads((folder / "stage.json").read_text(encoding="utf-8"))["identity"])
    except (OSError, ValueError, KeyError):
        return ""
