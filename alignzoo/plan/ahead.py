"""What would stop work that is not finished, found before anything is trained.

A rollout engine that cannot sample on this machine, a strategy that cannot be had, layers under an
adapter that a model does not have, a judge without a key: a stage would find them too, after the
ones before it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import AlignzooError, described
from alignzoo.contract.evaluation import Judge
from alignzoo.contract.rollout import RolloutEngine
from alignzoo.contract.stage import ModelRef
from alignzoo.plan.standing import REUSED, Standings
from alignzoo.recipe.blocks import EngineSpec, EvaluateSpec, Recipe, TrainSpec
from alignzoo.recipe.faults import Fault, FaultyRecipe, Path
from alignzoo.recipe.judges import is_worded, placed_values, questions_of
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.spec import Spec
from alignzoo.store.inputs import BUILT_IN_ENGINE, model_ref, origin

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TARGETS = ("adapter", "lora", "targets")


def check_ahead(recipe: Recipe, registry: Registry, known: Standings) -> None:
    """Raise FaultyRecipe with all that this machine, or a model that is here, makes impossible."""
    pending = list(_pending(recipe, known))
    faults = [
        *_strategy_faults(recipe, [spec for _, spec in pending]),
        *(fault for path, spec in pending for fault in _engine_faults(spec, path, registry)),
        *(
            fault
            for path, spec in pending
            for fault in _target_faults(spec, path, recipe, registry)
        ),
    ]
    if faults:
        raise FaultyRecipe(faults)


def check_judges(recipe: Recipe, registry: Registry, known: Standings) -> None:
    """Raise FaultyRecipe with what judges lack that something is trained before, such as a key.

    `plan` does not look: keys are for the machine that runs. A judge whose turn is at once is met
    then, or not at all where what it said is kept.
    """
    waits = "waits for"
    faults = [
        fault
        for path, spec in _pending(recipe, known)
        for fault in (
            *_judge_faults(spec, path, registry),
            *_question_faults(spec, path, registry),
        )
        if isinstance(spec, TrainSpec)
        or any(x.spec is spec and x.status.startswith(waits) for x in known.stages)
        or any(x.spec is spec and x.status.startswith(waits) for x in known.evaluations)
    ]
    if faults:
        raise FaultyRecipe(faults)


def _judge_faults(spec: Spec, path: Path, registry: Registry) -> Iterator[Fault]:
    named = [
        (chosen, (*path, *place, "judge"))
        for block, place in placed_values(spec)
        for chosen in block.judges
    ]
    if isinstance(spec, EvaluateSpec):
        named = [(chosen, (*path, "judge", k)) for k, chosen in enumerate(spec.judge)]
        rewards = ((name, reward.judge) for name, reward in spec.rewards.items())
        named += [(chosen, (*path, "rewards", name)) for name, chosen in rewards if chosen]
    for chosen, place in named:
        judge: Judge = build_options(registry.find("judge", chosen.name), chosen.with_)
        try:
            judge.check_here()
        except AlignzooError as error:
            yield Fault(place, str(error))
        except Exception as error:  # a stranger's code may raise anything
            yield Fault(place, f"{chosen.name}: its `check_here` failed: {described(error)}")


def _question_faults(spec: Spec, path: Path, registry: Registry) -> Iterator[Fault]:
    """Files of the questions that judges are asked, such as a template."""
    for block, place in placed_values(spec):
        if not is_worded(block, registry):
            continue
        try:
            questions_of(block, registry).settings()
        except AlignzooError as error:
            yield Fault((*path, *place, "questions"), str(error))


def _pending(recipe: Recipe, known: Standings) -> Iterator[tuple[Path, Spec]]:
    """The blocks of which something is not finished, with their places."""
    for index, stage in enumerate(known.stages):
        if stage.status != REUSED:
            yield ("stages", index), stage.spec
    for index, spec in enumerate(recipe.evaluate):
        if any(one.spec is spec and one.status != REUSED for one in known.evaluations):
            yield ("evaluate", index), spec


def _strategy_faults(recipe: Recipe, pending: list[Spec]) -> Iterator[Fault]:
    strategy = recipe.parallel.strategy
    if strategy == "ddp" or not any(isinstance(spec, TrainSpec) for spec in pending):
        return
    from alignzoo.engine.layout.build import check_strategy

    try:
        check_strategy(strategy)
    except AlignzooError as error:
        yield Fault(("parallel", "strategy"), str(error).removeprefix("parallel.strategy: "))


def _engine_faults(spec: Spec, path: Path, registry: Registry) -> Iterator[Fault]:
    """What an engine says of this machine."""
    rollout = getattr(spec, "rollout", None)
    block: EngineSpec | None = getattr(rollout or spec, "engine", None)
    if block is None or (block.name == BUILT_IN_ENGINE and block.name not in registry.engines):
        return
    engine: RolloutEngine = build_options(registry.find("engine", block.name), block.with_)
    try:
        engine.check_here()
    except AlignzooError as error:
        yield Fault((*path, *(("rollout",) if rollout else ()), "engine"), str(error))
    except Exception as error:  # a stranger's code may raise anything
        what = f"{block.name}: its `check_here` failed: {described(error)}"
        yield Fault((*path, *(("rollout",) if rollout else ()), "engine"), what)


def _target_faults(spec: Spec, path: Path, recipe: Recipe, registry: Registry) -> Iterator[Fault]:
    """Layers that the model under a new adapter does not have; a model's config tells them."""
    adapter = spec.adapter if isinstance(spec, TrainSpec) else None
    if adapter is None or not adapter.lora.ends:
        return
    from alignzoo.engine.models.adapters import Adapted, Lora, dressed

    new = Lora(adapter.lora.r, adapter.lora.alpha, adapter.lora.ends)
    base = model_ref(origin(spec.policy, recipe), recipe, {})  # type: ignore[attr-defined]
    try:
        model = _without_data(base, registry)
        if model is not None:
            dressed(model, Adapted("", new=new), 0)
    except AlignzooError as error:
        yield Fault((*path, *TARGETS), str(error).removeprefix(f"{'.'.join(TARGETS)}: "))
    except RuntimeError:  # of the library, which cannot walk this family without data
        return


def _without_data(ref: ModelRef, registry: Registry) -> PreTrainedModel | None:
    """The model of a plug-in, or one with the shapes of a folder's; None: neither is here."""
    from transformers import AutoConfig

    from alignzoo.engine.memory.fakes import fake_mode, fake_model
    from alignzoo.engine.models.hooked import plugin_model

    if (made := plugin_model(registry.hooks, ref, Role())) is not None:
        return copy.deepcopy(made)  # it may be the plug-in's own
    try:
        where = {"revision": ref.revision, "trust_remote_code": False, "local_files_only": True}
        config = AutoConfig.from_pretrained(ref.name, **where)
    except Exception:  # not here, or damaged: loading says what is wrong
        return None
    return fake_model(config, Role(), ref, fake_mode())
