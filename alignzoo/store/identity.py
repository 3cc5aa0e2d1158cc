"""What the result of a stage or an evaluation depends on, by content.

The manifest is kept beside every result, so that a person can compare two of them and see why
work was done again. Names of stages do not enter: equal inputs give equal identities in any
recipe. Whoever adds an input to a stage adds it here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import alignzoo
from alignzoo.contract.errors import AlignzooError, DataError, PluginError, described
from alignzoo.contract.evaluation import Benchmark, Judge
from alignzoo.contract.rollout import RolloutEngine
from alignzoo.contract.stage import ModelRef
from alignzoo.data.samples import cached_file, data_digest
from alignzoo.recipe.blocks import (
    DataSpec,
    EngineSpec,
    EvaluateSpec,
    Recipe,
    StageSpec,
    TrainSpec,
)
from alignzoo.recipe.judges import asked_of, by_of, is_worded, questions_of, valued_blocks
from alignzoo.recipe.options import build_options
from alignzoo.recipe.reading import declared
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.rewards import ValuedSpec
from alignzoo.recipe.spec import JudgeSpec, Spec
from alignzoo.store.code import core_digest
from alignzoo.store.files import digest_of, digest_of_value
from alignzoo.store.inputs import (
    BUILT_IN_ENGINE,
    data_of,
    data_source,
    measured_models,
    model_ref,
    models_of,
)
from alignzoo.store.records import Identity, check_output, recorded_output
from alignzoo.store.verdicts import bars_of

Outputs = Mapping[str, Path]  # stage -> its folder

# Names are replaced by the content they stand for; other keys change no result.
_NAMES: Any = {
    "name": True,
    "policy": True,
    "roles": True,
    "models": True,
    "baseline": True,
    "kl_to": True,
    "rewards": True,
    "data": {"name": True, "parts": {"__all__": {"name"}}},
    "validation": {"data": {"name"}},
    "engine": True,
    "log_samples": True,
    "rollout": {"reward": True, "engine": True},
}
# Of judges, what decides their values stands apart: neither prices nor patience does.
_VALUED: Any = {**_NAMES, **dict.fromkeys(ValuedSpec.model_fields, True)}


def stage_identity(
    spec: StageSpec, recipe: Recipe, registry: Registry, outputs: Outputs
) -> Identity:
    """The identity of a stage whose inputs are all there.

    Raises DataError when an input is missing.
    """
    data = data_of(spec)
    return Identity(
        {
            **_common(spec, recipe),
            **_engine(spec, registry),
            "plugins": sorted({*_plugins(spec, registry), *_savers(spec, registry)}),
            "models": {
                place: model_digest(name, recipe, registry, outputs)
                for place, name in models_of(spec).items()
            },
            "data": {
                place: _data_digest(d, recipe, registry, outputs) for place, d in data.items()
            },
            **_declared(spec, registry),
            **({"values": _values(spec, registry)} if valued_blocks(spec) else {}),
        },
        bars_of(spec, registry),
    )


def evaluation_identity(
    spec: EvaluateSpec, model: str, recipe: Recipe, registry: Registry, outputs: Outputs
) -> Identity:
    """The identity of one model's results on a benchmark."""
    digest = functools.partial(model_digest, recipe=recipe, registry=registry, outputs=outputs)
    return Identity(
        {
            **_common(spec, recipe),
            **_engine(spec, registry),
            "plugins": _plugins(spec, registry),
            "models": {k: digest(name) for k, name in measured_models(spec, model).items()},
            "data": {
                k: _data_digest(d, recipe, registry, outputs) for k, d in data_of(spec).items()
            },
            "baseline": digest(spec.baseline) if spec.baseline else None,
            "is_baseline": model == spec.baseline,
            "kl_to": {name: digest(name) for name in spec.kl_to},
            "settings": _settings(spec, registry),
            "judges": judge_identities(spec, registry),
            "reward": _judges(_judges_of(spec, model), registry),
        }
    )


def _judges_of(spec: EvaluateSpec, row: str) -> list[JudgeSpec]:
    """The judge that a row is, where it is one."""
    reward = spec.rewards.get(row)
    return [reward.judge] if reward is not None and reward.judge is not None else []


def answers_identity(
    spec: EvaluateSpec,
    model: str,
    prompts: Sequence[Mapping[str, Any]],
    recipe: Recipe,
    registry: Registry,
    outputs: Outputs,
) -> Identity:
    """The identity of a model's answers: no judge, no baseline. `prompts` has one JSON-able entry
    per prompt with everything that decides how it is answered.
    """
    return Identity(
        {
            **_common(spec, recipe, kept=("samples",)),
            **_engine(spec, registry),
            "plugins": [
                registry.owner(cls).identity
                for cls in _classes(spec, registry)
                if issubclass(cls, RolloutEngine)
            ],
            "models": {"model": model_digest(model, recipe, registry, outputs)},
            "prompts": digest_of_value(list(prompts)),
        }
    )


def engine_identity(spec: EngineSpec, registry: Registry) -> str | dict[str, Any]:
    """Name and deciding options of an engine; those of the built-in one stand beside it."""
    if spec.name == BUILT_IN_ENGINE and spec.name not in registry.engines:
        return spec.name
    engine: RolloutEngine = build_options(registry.find("engine", spec.name), spec.with_)
    return {"name": spec.name, "settings": dict(engine.identity())}


def judge_identities(spec: EvaluateSpec, registry: Registry) -> list[dict[str, Any]]:
    """Name, code and deciding settings of every judge of a block."""
    return _judges(spec.judge, registry)


def _judges(judges: Iterable[JudgeSpec], registry: Registry) -> list[dict[str, Any]]:
    found = []
    for given in judges:
        cls = registry.find("judge", given.name)
        judge: Judge = build_options(cls, given.with_)
        plugin = registry.owner(cls).identity
        found.append({"name": given.name, "plugin": plugin, "settings": dict(judge.identity())})
    return found


def _values(spec: Spec, registry: Registry) -> dict[str, Any]:
    """What answers are worth. A sum logs its parts by their names too, those of judges and models:
    a log must not call a reward model what the recipe calls another.
    """
    reward = getattr(getattr(spec, "rollout", None), "reward", None)
    named = list(reward.names) if reward is not None and reward.parts is not None else None
    return {"of": [_valued(block, registry) for block in valued_blocks(spec)], "named": named}


def _valued(block: ValuedSpec, registry: Registry) -> dict[str, Any]:
    """What decides the values of answers: judges, what they are asked, how it is read."""
    found = {
        "by": by_of(block, registry) if block.judges else None,
        "judges": _judges(block.judges, registry),
        "weight": getattr(block, "weight", None),
    }
    if not is_worded(block, registry):
        return found
    benchmark = questions_of(block, registry)
    every: dict[str, Any] = asdict(benchmark) if is_dataclass(benchmark) else {}
    return found | {
        "questions": benchmark.name,
        "options": {k: x for k, x in every.items() if k not in benchmark.file_options},
        "settings": _settings_of(benchmark),
        "vote": block.vote if len(block.judges) > 1 else None,
    }


def _settings(spec: EvaluateSpec, registry: Registry) -> dict[str, Any]:
    return _settings_of(build_options(registry.find("benchmark", spec.benchmark), spec.with_))


def _settings_of(benchmark: Benchmark) -> dict[str, Any]:
    """What the benchmark's files hold; a plan must not fail for want of them."""
    try:
        return dict(benchmark.settings())
    except DataError as error:
        return {"missing": str(error)}


def model_digest(name: str, recipe: Recipe, registry: Registry, outputs: Outputs) -> str:
    """What stands for a model: its bytes, or its name and revision, and who may load it.

    A plug-in's `load_model` is asked first, for folders and the results of stages too: only what it
    makes of them is the model.
    """
    ref = model_ref(name, recipe, outputs)
    stated = stated_identity(ref, registry)
    loaders = "+".join(implementing(registry, "load_model", "load_tokenizer"))
    by = f"loaded by {loaders or 'the core'}" + ("" if stated is None else f" stated {stated}")
    if name in outputs:
        recorded = recorded_output(outputs[name], "model")
        if recorded is None:
            raise DataError(f"stage '{name}' left no model; name one that trains")
        return f"files:{recorded} {by}"
    if ref.path.exists():
        check_output(ref.path.parent, ref.path.name)
        return f"files:{digest_of(ref.path)} {by}"
    revision = hub_commit(ref) or ref.revision or "latest"
    return f"name:{ref.name}@{revision} seed {ref.seed} {by}"


def stated_identity(ref: ModelRef, registry: Registry) -> str | None:
    """What a plug-in says of the content behind a name; PluginError when its hook fails."""
    try:
        stated = registry.hooks.identity(ref=ref)
    except AlignzooError:
        raise
    except Exception as error:  # a stranger's code may raise anything
        what = f"{ref.name}: a plug-in's `identity` failed: {described(error)}"
        raise PluginError(what) from error
    return None if stated is None else str(stated)


def hub_commit(ref: ModelRef) -> str | None:
    """The commit of a hub model as far as this machine knows it; asks no server."""
    folder = hub_folder(ref)
    return folder.name if folder else None


def hub_folder(ref: ModelRef) -> Path | None:
    """Where this machine keeps what it has of a hub model; asks no server."""
    if ref.name.count("/") != 1:
        return None
    file = cached_file(ref.name, "config.json", "model", ref.revision)
    return file.parent if file else None


def _common(spec: Spec, recipe: Recipe, kept: Sequence[str] | None = None) -> dict[str, Any]:
    """What every piece depends on; `kept` are the options of the block that matter (all)."""
    names = _VALUED if isinstance(spec, ValuedSpec) else _NAMES
    options = spec.model_dump(mode="json", by_alias=True, exclude=names)
    return {
        "code": {
            "alignzoo": f"{alignzoo.__version__}#{core_digest()}",
            **{name: version(name) for name in ("torch", "transformers", *_peft(spec))},
        },
        "seed": recipe.seed,
        "precision": recipe.precision,
        "attn_implementation": recipe.attn_implementation,
        "options": options if kept is None else {key: options[key] for key in kept},
    }


def _peft(spec: Spec) -> Sequence[str]:
    """It draws the adapter's first weights."""
    return ("peft",) if getattr(spec, "adapter", None) else ()


def _engine(spec: Spec, registry: Registry) -> dict[str, Any]:
    """What samples, where the block samples."""
    engine = _engine_spec(spec)
    return {} if engine is None else {"engine": engine_identity(engine, registry)}


def _engine_spec(spec: Spec) -> EngineSpec | None:
    found: EngineSpec | None = getattr(getattr(spec, "rollout", spec), "engine", None)
    return found


def _declared(spec: Spec, registry: Registry) -> dict[str, Any]:
    """What a plug-in's stage says it reads."""
    cls = registry.stages.get(getattr(spec, "stage", ""))
    reads = None if cls is None else declared(cls)
    return {} if reads is None else {"reads": reads}


def _plugins(spec: Spec, registry: Registry) -> list[str]:
    return sorted({registry.owner(cls).identity for cls in _classes(spec, registry)})


def _classes(spec: Spec, registry: Registry) -> Iterable[type]:
    """The registered classes that do a block's work."""
    engine, blocks = _engine_spec(spec), valued_blocks(spec)
    judges = [judge for x in blocks for judge in x.judges]
    judges += spec.judge if isinstance(spec, EvaluateSpec) else ()
    worded = [asked_of(x, registry).name for x in blocks if is_worded(x, registry)]
    named = [
        ("algorithm", getattr(spec, "algorithm", None)),
        *(("judge", judge.name) for judge in judges),
        *(("benchmark", name) for name in worded),
        ("benchmark", getattr(spec, "benchmark", None)),
        ("engine", engine.name if engine else None),
    ]
    for kind, name in named:
        if name and (kind, name) != ("engine", BUILT_IN_ENGINE):
            yield registry.find(kind, name)
    if (stage := getattr(spec, "stage", None)) in registry.stages:
        yield registry.find("stage", str(stage))


def _savers(spec: StageSpec, registry: Registry) -> list[str]:
    """The plug-ins that may write a stage's model."""
    return implementing(registry, "save_model") if isinstance(spec, TrainSpec) else []


def implementing(registry: Registry, *hooks: str) -> list[str]:
    """The plug-ins with one of these hooks. Which of them would answer, only calling them tells."""
    names = {
        implementation.plugin_name
        for hook in hooks
        for implementation in getattr(registry.hooks, hook).get_hookimpls()
    }
    return sorted(plugin.identity for plugin in registry.plugins if plugin.module in names)


def _data_digest(spec: DataSpec, recipe: Recipe, registry: Registry, outputs: Outputs) -> str:
    if spec.name not in outputs and spec.name in registry.datasets:
        owner = registry.owner(registry.find("dataset", spec.name))
        return f"made:{spec.name} seed {recipe.seed} by {owner.identity}"
    recorded = recorded_output(outputs[spec.name], "data.jsonl") if spec.name in outputs else None
    return f"files:{recorded}" if recorded else data_digest(data_source(spec, outputs))
