"""What a run would do, without loading a model, reading a hub, or writing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alignzoo.engine.train.cut import Cut, buffer_cut
from alignzoo.plan.ahead import check_ahead
from alignzoo.plan.asking import asking_notes
from alignzoo.plan.keeping import keeping_notes
from alignzoo.plan.standing import EvaluationStanding, StageStanding, standings
from alignzoo.recipe.blocks import (
    GenerateSpec,
    LabelSpec,
    PluginStageSpec,
    Recipe,
    StageSpec,
    TrainSpec,
)
from alignzoo.recipe.buffers import items_per_prompt
from alignzoo.recipe.options import try_options
from alignzoo.recipe.registry import Registry
from alignzoo.store.belonging import check_models
from alignzoo.store.folders import default_folder
from alignzoo.store.inputs import INITIAL, check_prompts, measured_models, models_of
from alignzoo.store.presence import check_inputs
from alignzoo.store.sizes import check_kinds, known_items


@dataclass(frozen=True)
class Step:
    """One stage, or one model on one benchmark."""

    name: str
    kind: str  # "train", "generate", "label", "evaluate", or a plug-in's stage
    what: str  # the algorithm, judge, benchmark or plug-in's stage
    status: str  # "reused", "resumes", "to run", or "waits for <stage>"
    models: Mapping[str, str]  # role -> where it comes from
    steps: str  # optimiser steps, or how they follow from the data; answers per prompt


@dataclass(frozen=True)
class Plan:
    """The stages and evaluations of a recipe in the order in which they would run."""

    folder: Path
    stages: tuple[Step, ...]
    evaluations: tuple[Step, ...]
    strategy: str = "ddp"  # what each process that trains holds
    notes: tuple[str, ...] = ()  # models to get or that differ harmlessly, questions, room


def plan_recipe(recipe: Recipe, registry: Registry, folder: Path | None = None) -> Plan:
    """The plan of a recipe in a run folder (default: the one `run` would take).

    Raises FaultyRecipe when files or folders that it names are not there, or this machine could not
    do what is left; RecipeError when models do not belong together, DataError when a data file
    holds rendered chats as plain prompts, or no rows of the kind that a method needs.
    """
    notes = check_inputs(recipe, registry)
    check_prompts(recipe)
    check_kinds(recipe, registry)
    folder = default_folder(recipe, registry) if folder is None else folder
    known = standings(recipe, registry, folder)
    notes = (*notes, *check_models(recipe, registry, known.finished))
    notes = (*notes, *asking_notes(recipe, registry), *keeping_notes(recipe, registry, known))
    check_ahead(recipe, registry, known)
    stages = tuple(_stage_step(stage, recipe, registry, known.finished) for stage in known.stages)
    evaluations = tuple(_evaluation_step(one, recipe) for one in known.evaluations)
    return Plan(folder, stages, evaluations, recipe.parallel.strategy, notes)


def _stage_step(
    stage: StageStanding, recipe: Recipe, registry: Registry, finished: Mapping[str, Path]
) -> Step:
    spec = stage.spec
    kind, what = _kind(spec)
    steps = _steps(spec, registry, finished)
    return Step(spec.name, kind, what, stage.status, _held(spec, recipe, registry), steps)


def _kind(spec: StageSpec) -> tuple[str, str]:
    match spec:
        case TrainSpec():
            return "train", spec.algorithm
        case GenerateSpec():
            return "generate", f"{spec.samples} per prompt"
        case LabelSpec():
            return "label", " + ".join(judge.name for judge in spec.judges)
        case PluginStageSpec():
            return "stage", spec.stage
    raise TypeError(f"no stage is known for {type(spec).__name__}")


def _steps(spec: StageSpec, registry: Registry, finished: Mapping[str, Path]) -> str:
    """Steps and the items they come from, or the rule where the number of items is not known."""
    if not isinstance(spec, TrainSpec):
        return ""
    optim, rollout = spec.train, spec.rollout
    if optim.steps:
        return str(optim.steps)
    cls = registry.algorithms[spec.algorithm]
    cut = Cut(optim.batch_size, cls.least_items)
    items = known_items(spec, registry, finished)
    if rollout is None:
        steps = None if items is None else optim.epochs * cut.count(items)
        return _shown_steps(steps, items, "items", f"{optim.epochs} x items / {cut.size}")
    per_prompt = items_per_prompt(rollout, cls.batch)
    buffers = buffer_cut(cut, rollout.prompts, per_prompt)

    def updates(n_prompts: int) -> int:
        return cut.updates(n_prompts * per_prompt, rollout.epochs)

    steps = None if items is None else optim.epochs * sum(map(updates, buffers.sizes(items)))
    rule = f"{optim.epochs} x {updates(rollout.prompts)} per {rollout.prompts} prompts"
    return _shown_steps(steps, items, "prompts", rule)


def _shown_steps(steps: int | None, items: int | None, unit: str, rule: str) -> str:
    if steps is None:
        return f"{rule.removeprefix('1 x ')}, rounded up"
    return f"{steps} ({items} {unit})"


def _held(spec: StageSpec, recipe: Recipe, registry: Registry) -> dict[str, str]:
    """The models a stage holds: those the recipe binds, and those that start like another."""
    named = {place.removeprefix("roles."): name for place, name in models_of(spec).items()}
    if not isinstance(spec, TrainSpec):
        held = {role: _shown(name, recipe) for role, name in named.items()}
        reads = isinstance(spec, PluginStageSpec) and spec.data is not None
        return {**held, "data": spec.data.name} if reads else held  # type: ignore[attr-defined]
    roles = registry.algorithms[spec.algorithm].roles
    main = "policy" if "policy" in roles else next(r for r in roles if roles[r].trainable)
    named[main] = named.pop("policy")
    for role, declared in roles.items():
        like = declared.like
        if role not in named and like is not None:
            named[role] = named.get(like) or named[main]
    held = {role: _shown(name, recipe) for role, name in named.items()}
    method, _ = try_options(registry.algorithms[spec.algorithm], spec.with_)
    for role, rule in (method.moving() if method else {}).items():
        held[role] = f"{held[role]} ({rule.told})"
    held |= {role: f"{held[role]} (sees {r.sees})" for role, r in roles.items() if r.sees}
    held = {role: source for role, source in held.items() if role in roles or role[:6] == "reward"}
    sampler = spec.rollout.sampler if spec.rollout else None
    return held | {"sampler": sampler.told} if sampler else held


def _shown(name: str, recipe: Recipe) -> str:
    is_initial = name == INITIAL and all(stage.name != INITIAL for stage in recipe.stages)
    return recipe.model if is_initial else name


def _evaluation_step(one: EvaluationStanding, recipe: Recipe) -> Step:
    spec = one.spec
    measured = measured_models(spec, one.model)
    models = {place: _shown(name, recipe) for place, name in measured.items()}
    models |= {f"kl({name})": _shown(name, recipe) for name in spec.kl_to}
    name = f"{spec.benchmark}: {one.model}"
    size = f"{spec.samples} per prompt"
    if spec.data is not None:
        models, size = {**models, "data": spec.data.name}, "every pair"
    return Step(name, "evaluate", spec.benchmark, one.status, models, size)
