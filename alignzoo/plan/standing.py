"""How far every piece of a recipe's work has come, by the folders of its run and the cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from alignzoo.recipe.blocks import EvaluateSpec, Recipe, StageSpec
from alignzoo.recipe.registry import Registry
from alignzoo.store.folders import evaluation_folder, model_folder, stage_folder
from alignzoo.store.identity import evaluation_identity, stage_identity
from alignzoo.store.inputs import evaluated_models, evaluation_reads, stages_read
from alignzoo.store.records import Identity, find, resumable

REUSED = "reused"


@dataclass(frozen=True)
class StageStanding:
    """A stage, and "reused", "resumes", "to run" or "waits for <stage>"."""

    spec: StageSpec
    status: str


@dataclass(frozen=True)
class EvaluationStanding:
    """One model on one benchmark, and the same."""

    spec: EvaluateSpec
    model: str
    status: str


@dataclass(frozen=True)
class Standings:
    """All of a recipe's work in the order in which it would run."""

    stages: tuple[StageStanding, ...]
    evaluations: tuple[EvaluationStanding, ...]
    finished: Mapping[str, Path]  # stage -> its folder


def standings(recipe: Recipe, registry: Registry, folder: Path) -> Standings:
    """What is finished and what is not. Raises DataError when a data file is not there."""
    finished: dict[str, Path] = {}
    stages = []
    for index, spec in enumerate(recipe.stages, 1):
        status = _waits(stages_read(spec, recipe), finished)
        if not status:
            own = stage_folder(folder, index, spec.name)
            identity = stage_identity(spec, recipe, registry, finished)
            status, found = _status(own, identity)
            finished |= {spec.name: found} if found else {}
        stages.append(StageStanding(spec, status))
    evaluations = tuple(_evaluations(recipe, registry, folder, finished))
    return Standings(tuple(stages), evaluations, finished)


def _evaluations(
    recipe: Recipe, registry: Registry, folder: Path, finished: Mapping[str, Path]
) -> Iterator[EvaluationStanding]:
    for number, spec in enumerate(recipe.evaluate, 1):
        for model in evaluated_models(spec, recipe, registry):
            read = evaluation_reads(spec, model)
            status = _waits([s.name for s in recipe.stages if s.name in read], finished)
            if not status:
                own = evaluation_folder(folder, number, spec) / model_folder(model)
                identity = evaluation_identity(spec, model, recipe, registry, finished)
                status, _ = _status(own, identity)
            yield EvaluationStanding(spec, model, status)


def _waits(read: Collection[str], finished: Collection[str]) -> str:
    missing = [name for name in read if name not in finished]
    return f"waits for {', '.join(missing)}" if missing else ""


def _status(folder: Path, identity: Identity) -> tuple[str, Path | None]:
    if found := find(folder, identity):
        return REUSED, found
    return ("resumes" if resumable(folder, identity) else "to run"), None
