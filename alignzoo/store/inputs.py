"""What the blocks of a recipe read: models and data by name, and what the names stand for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path

from alignzoo.contract.errors import DataError
from alignzoo.contract.evaluation import Benchmark
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.verdicts import JudgedBenchmark
from alignzoo.data import rendered
from alignzoo.data.samples import DataSource
from alignzoo.recipe.blocks import (
    DataSpec,
    EvaluateSpec,
    GenerateSpec,
    LabelSpec,
    PluginStageSpec,
    Recipe,
    TrainSpec,
)
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.rewards import PEOPLE, placed_rewards
from alignzoo.recipe.roles import result_head
from alignzoo.recipe.spec import Spec

INITIAL = "initial"  # how a recipe's own model is called where a stage's name may stand
BUILT_IN_ENGINE = "transformers"


@singledispatch
def models_of(spec: Spec) -> dict[str, str]:
    """The models a block reads: place in the block -> name."""
    raise TypeError(f"{type(spec).__name__} is not a block that reads models")


@models_of.register
def _(spec: TrainSpec) -> dict[str, str]:
    rewards = placed_rewards(spec.rollout.reward) if spec.rollout else []
    return {
        "policy": spec.policy or INITIAL,
        **{f"roles.{role}": name for role, name in spec.roles.items()},
        **{".".join(map(str, place[1:])): x.model for x, place in rewards if x.model},
    }


@models_of.register
def _(spec: GenerateSpec) -> dict[str, str]:
    return {"policy": spec.policy or INITIAL}


@models_of.register
def _(spec: LabelSpec) -> dict[str, str]:
    return {}


@models_of.register
def _(spec: PluginStageSpec) -> dict[str, str]:
    return dict(spec.models)


def data_of(spec: Spec) -> dict[str, DataSpec]:
    """The data a stage reads: place in the block -> description."""
    validation = spec.validation if isinstance(spec, TrainSpec) else None
    data: DataSpec | None = getattr(spec, "data", None)
    parts = {f"data.{k}": part for k, part in enumerate(data.parts or ())} if data else {}
    return {
        **(parts or ({"data": data} if data else {})),
        **({"validation": validation.data} if validation else {}),
    }


def stages_read(spec: Spec, recipe: Recipe) -> list[str]:
    """The stages whose results a stage reads, in the recipe's order."""
    used = {*models_of(spec).values(), *(data.name for data in data_of(spec).values())}
    return [stage.name for stage in recipe.stages if stage.name in used]


def descent(name: str, recipe: Recipe) -> list[str]:
    """The stages that made a stage's result, in the recipe's order, itself the last."""
    spec = next(stage for stage in recipe.stages if stage.name == name)
    above = {one for read in stages_read(spec, recipe) for one in descent(read, recipe)}
    return [stage.name for stage in recipe.stages if stage.name in above or stage is spec]


def evaluated_models(spec: EvaluateSpec, recipe: Recipe, registry: Registry) -> list[str]:
    """The models of an `evaluate` block: the baseline first, then in the order asked for.

    By default every language model that a stage trains; a scalar head answers no prompt. On given
    pairs they are the rewards, and the people that judges are held against.
    """
    if spec.rewards:
        kind = registry.benchmarks.get(spec.benchmark, Benchmark)
        people = [PEOPLE] if issubclass(kind, JudgedBenchmark) else []
        return list(dict.fromkeys([*spec.rewards, *people]))
    trained = [
        stage.name
        for stage in recipe.stages
        if isinstance(stage, TrainSpec) and result_head(stage, registry) != "scalar"
    ]
    wanted = list(spec.models if spec.models is not None else trained)
    return list(dict.fromkeys([spec.baseline, *wanted] if spec.baseline else wanted))


def measured_models(spec: EvaluateSpec, name: str) -> dict[str, str]:
    """The models behind one row of an `evaluate` block: place -> name."""
    if not spec.rewards:
        return {"model": name}
    return spec.rewards[name].models if name in spec.rewards else {}


def evaluation_reads(spec: EvaluateSpec, name: str) -> set[str]:
    """The models and the data that one row of an `evaluate` block needs, by name."""
    others = (*spec.kl_to, *([spec.baseline] if spec.baseline else []))
    data = (data.name for data in data_of(spec).values())
    return {*measured_models(spec, name).values(), *others, *data}


def model_ref(name: str | None, recipe: Recipe, outputs: Mapping[str, Path]) -> ModelRef:
    """The model a name stands for: a stage's result, "initial", a folder, a hub name, a plug-in's.

    A hub name may end in `@revision`.
    """
    if name is not None and name in outputs:
        return _ref(str(outputs[name] / "model"), recipe)
    name = recipe.model if name in (None, INITIAL) else name
    base, _, revision = str(name).partition("@")
    if not revision or Path(str(name)).exists():
        return _ref(str(name), recipe)
    return _ref(base, recipe, revision)


def _ref(name: str, recipe: Recipe, revision: str | None = None) -> ModelRef:
    return ModelRef(name, recipe.seed, revision, recipe.attn_implementation)


def data_source(spec: DataSpec, outputs: Mapping[str, Path]) -> DataSource:
    """Where samples that no plug-in makes are read from.

    Raises DataError when the named stage left no samples.
    """
    name = spec.name
    if name in outputs:
        file = outputs[name] / "data.jsonl"
        if not file.exists():
            raise DataError(f"data.name: stage '{name}' left no samples; name one that makes data")
        name = str(file)
    return DataSource(
        name=name,
        subset=spec.subset,
        split=spec.split,
        limit=spec.limit,
        skip=spec.skip,
        swap=spec.swap,
        max_bad=spec.max_bad,
    )


def check_prompts(recipe: Recipe) -> None:
    """Look for chats that somebody rendered into plain prompts, in files that stages read.

    Raises DataError where the model and the file are on this machine; a stage looks at the others.
    """
    stages = {stage.name: stage for stage in recipe.stages}
    for stage in recipe.stages:
        if not isinstance(stage, TrainSpec | GenerateSpec):
            continue
        folder = Path(origin(stage.policy, recipe))
        for data in data_of(stage).values():
            if data.special is None and data.name not in stages:
                rendered.check_prompts(data_source(data, {}), folder)


def origin(name: str | None, recipe: Recipe) -> str:
    """The model that no stage makes and that a name's model descends from."""
    stages = {stage.name: stage for stage in recipe.stages}
    name, seen = name or INITIAL, set[str]()
    while name in stages and name not in seen:
        seen.add(name)
        name = getattr(stages[name], "policy", None) or INITIAL
    return recipe.model if name == INITIAL else name
