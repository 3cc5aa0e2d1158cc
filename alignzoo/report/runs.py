"""A run's folder as values: how far it came, what each stage cost, what repeats it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from alignzoo.contract.errors import UsageError, counted
from alignzoo.engine.train.journal import rows_until
from alignzoo.engine.train.phases import PHASES, REST
from alignzoo.recipe.blocks import AnyStage, Recipe, TrainSpec
from alignzoo.report.facts import RunFacts, StageFacts
from alignzoo.store.files import read_json
from alignzoo.store.folders import runs_in, stage_folder
from alignzoo.store.inputs import stages_read

MARKS = ("run.json", "scores.jsonl", "stages", "evaluations")  # of a run's folder


@dataclass(frozen=True)
class Log:
    """The metrics that a train stage logged; `lost` lines cannot be read."""

    rows: tuple[Mapping[str, float], ...]
    lost: int


@dataclass(frozen=True)
class Run:
    """A run as it lies on the disk."""

    name: str
    folder: Path
    record: Mapping[str, Any]  # run.json
    recipe: Recipe | None
    text: str  # of recipe.yaml
    logs: Mapping[str, Log]  # train stage -> what it logged
    missing: tuple[str, ...] = field(default=())

    def folder_of(self, stage: str) -> Path:
        """Where a stage of the recipe lies."""
        names = [spec.name for spec in self.recipe.stages] if self.recipe else []
        return stage_folder(self.folder, names.index(stage) + 1, stage)


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The folders of runs; one that holds several, as of seeds or a sweep, stands for them.

    Raises UsageError for what is no run.
    """
    found: list[Path] = []
    for folder in folders:
        inside = runs_in(folder)
        own = any((folder / name).exists() for name in MARKS)
        if not own and not inside:
            raise UsageError(
                f"{folder}: no run; name the folder that `alignzoo run` or `eval` wrote"
                if folder.is_dir()
                else f"{folder}: no such folder; name the folders of runs"
            )
        found += [folder] if own else inside
    return list({folder.resolve(): folder for folder in found}.values())


def named(folders: Sequence[Path]) -> dict[str, Path]:
    """Folder by the shortest end of its path that no other folder here has."""
    whole = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, whole), default=0) + 1):
        names = ["/".join(parts[-length:]) for parts in whole]
        if len(set(names)) == len(names):
            return dict(zip(names, folders, strict=True))
    return {str(folder.resolve()): folder for folder in folders}


def read_run(name: str, folder: Path) -> Run:
    """What a folder holds, however far its run came and whatever happened to its files."""
    missing = []
    record = read_json(folder / "run.json")
    if not record:
        missing.append(f"{name}: run.json is missing or damaged: status and times are not known")
    file = folder / "recipe.yaml"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    recipe, why = _recipe(text)
    if recipe is None:
        missing.append(f"{name}: {why}: stages, metrics and samples are not shown")
    logs = {}
    for index, spec in enumerate(recipe.stages if recipe else (), 1):
        if isinstance(spec, TrainSpec):
            log = _log(stage_folder(folder, index, spec.name) / "metrics.jsonl")
            logs[spec.name] = log
            if log.lost:
                what = f"{counted(log.lost, 'line')} of metrics.jsonl cannot be read"
                missing.append(
                    f"{name}/{spec.name}: {what} and {'are' if log.lost > 1 else 'is'} left out"
                )
    return Run(name, folder, record, recipe, text, logs, tuple(missing))


def _recipe(text: str) -> tuple[Recipe | None, str]:
    """The recipe, or None and why."""
    if not text:
        return None, "recipe.yaml is missing"
    try:
        return Recipe.model_validate(yaml.safe_load(text)), ""
    except (yaml.YAMLError, RecursionError):
        return None, "recipe.yaml is damaged"
    except ValidationError as error:
        places = ".".join(str(part) for part in error.errors()[0]["loc"])
        return None, f"this version of alignzoo cannot read its recipe.yaml (first: {places})"


def _log(file: Path) -> Log:
    """The rows whose step and values are numbers, each step once and in order."""
    if not file.is_file():
        return Log((), 0)
    try:
        rows = rows_until(file, sys.maxsize)
    except (OSError, ValueError, RecursionError):  # bytes that are no text
        return Log((), 1)
    good: list[dict[str, float]] = []
    for row in rows:
        numbers = {key: float(x) for key, x in row.items() if type(x) in (int, float)}
        if len(numbers) == len(row) and (not good or numbers["step"] > good[-1]["step"]):
            good.append(numbers)
    with file.open(encoding="utf-8", errors="replace") as lines:
        written = sum(1 for line in lines if line.strip())
    return Log(tuple(good), written - len(good))


def facts_of(run: Run) -> RunFacts:
    """What the page says of a run."""
    record, versions = run.record, run.record.get("versions")
    plugins = record.get("plugins")
    return RunFacts(
        name=run.name,
        folder=str(run.folder),
        recipe_name=run.recipe.name if run.recipe else str(record.get("recipe", "")),
        status=status_of(run),
        error=str(record.get("error", "")),
        started=str(record.get("started", "")),
        ended=str(record.get("ended", "")),
        seed=run.recipe.seed if run.recipe else None,
        stages=tuple(_stages(run)),
        versions={str(k): str(v) for k, v in versions.items()}
        if isinstance(versions, dict)
        else {},
        plugins=tuple(map(str, plugins)) if isinstance(plugins, list) else (),
        recipe=run.text,
        commands=tuple(_commands(run)),
    )


def status_of(run: Run) -> str:
    """How far a run came. One that says it is running may have been killed since."""
    return str(run.record.get("status", "not known"))


def _commands(run: Run) -> Iterable[str]:
    if run.text:
        recipe = shlex.quote(str(run.folder / "recipe.yaml"))
        yield f"alignzoo run {recipe} --output {shlex.quote(str(run.folder) + '-again')}"
    yield f"alignzoo report {shlex.quote(str(run.folder))}"


def _stages(run: Run) -> Iterable[StageFacts]:
    if run.recipe is None:
        return
    pieces = run.record.get("pieces")
    known = pieces if isinstance(pieces, dict) else {}
    for index, spec in enumerate(run.recipe.stages, 1):
        entry = known.get(spec.name)
        entry = entry if isinstance(entry, dict) else {}
        folder = stage_folder(run.folder, index, spec.name)
        seconds = entry.get("seconds")
        log = run.logs.get(spec.name)
        kind, what = _kind(spec)
        yield StageFacts(
            name=spec.name,
            kind=kind,
            what=what,
            reads=tuple(stages_read(spec, run.recipe)),
            status=_status(entry, folder, run),
            seconds=float(seconds) if isinstance(seconds, int | float) else None,
            made_in=_made_in(folder / "timing.jsonl") if log else None,
            steps=len(log.rows) if log else None,
            shares=_shares(folder / "timing.jsonl"),
        )


def _kind(spec: AnyStage) -> tuple[str, str]:
    if isinstance(spec, TrainSpec):
        return "train", spec.algorithm
    kind = str(spec.stage)
    return kind, str(getattr(spec, "judge", "") or "")


def _status(entry: Mapping[str, Any], folder: Path, run: Run) -> str:
    """What the run noted; a stage under way shares the end of its run."""
    status = str(entry.get("status") or "")
    if status == "running" and status_of(run) != "running":
        return status_of(run)
    if status:
        return status
    done = read_json(folder / "stage.json").get("status") == "done"
    return "done earlier" if done else "not begun"


def _made_in(file: Path) -> float | None:
    """Seconds of all steps in a log of times."""
    if not file.is_file():
        return None
    total = 0.0
    try:
        for row in rows_until(file, sys.maxsize):
            total += float(row.get("seconds", 0.0))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return round(total, 1)


def _shares(file: Path) -> dict[str, float]:
    """Phase -> its share of a stage's time, by the last summary; nothing where there is none."""
    try:
        rows = as_rows(file)[0]
    except OSError:
        return {}
    said = [row["shares"] for row in rows if isinstance(row.get("shares"), dict)]
    found = [(phase, said[-1].get(phase)) for phase in (*PHASES, REST)] if said else []
    return {phase: float(x) for phase, x in found if isinstance(x, int | float) and 0 <= x <= 1}


def as_rows(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a file of JSON lines, and how many lines are none."""
    rows, lost = [], 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            rows += [row] if isinstance(row, dict) else []
            lost += not isinstance(row, dict)
    return rows, lost
