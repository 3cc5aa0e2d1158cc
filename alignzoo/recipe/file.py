"""A recipe file -> a checked Recipe, or every problem of it at once; and its JSON Schema."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path as File
from typing import Any, TypeVar, get_args

from alignzoo.recipe.blocks import (
    NO_STAGE_KIND,
    STAGE_SPECS,
    EvaluateSpec,
    Recipe,
    stage_kind,
)
from alignzoo.recipe.check import Draft, Scope, evaluate_faults, stage_faults
from alignzoo.recipe.faults import Block, BlockAt, Fault, Path, validate
from alignzoo.recipe.observers import tracker_faults
from alignzoo.recipe.options import options_schema
from alignzoo.recipe.parallel import ParallelSpec
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.spec import Spec, TrackerSpec
from alignzoo.recipe.strategy import strategy_faults
from alignzoo.recipe.text import read_source

S = TypeVar("S", bound=Spec)


def load_recipe(path: File, registry: Registry, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, with `key.path=value` overrides, checked against the plug-ins.

    Raises RecipeError with every problem, each as "<file>:<line>:<column>: <path>" and a cause.
    Loads no model and no data.
    """
    source = read_source(path, overrides)
    error = source.error(recipe_faults(source.data, registry))
    if error.problems:
        raise error
    recipe, faults = validate(Recipe, source.data, block_of(Recipe))
    if recipe is None:
        raise source.error(faults)
    return recipe


def recipe_faults(data: dict[str, Any], registry: Registry) -> Iterator[Fault]:
    """Everything that is wrong with the plain values of a recipe.

    A block with faults is checked further without the values that are at fault.
    """
    stages, evaluate = _entries(data, "stages"), _entries(data, "evaluate")
    rest = {
        **data,
        **{key: [] for key in ("stages", "evaluate") if isinstance(data.get(key), list)},
    }
    yield from validate(Recipe, rest, block_of(Recipe))[1]
    parallel, _ = _read(ParallelSpec, data.get("parallel", {}))
    if data.get("stages") == [] and not evaluate:
        yield Fault(("stages",), "there is nothing to do: no stages, no evaluate")
    drafts = []
    for index, raw in enumerate(stages):
        draft, faults = _draft(index, raw)
        drafts.append(draft)
        yield from faults
    if parallel is not None:
        yield from strategy_faults(parallel.strategy, drafts)
    scope = Scope(tuple(drafts), registry, str(data.get("model", "")))
    yield from stage_faults(scope)
    trackers = [_read(TrackerSpec, raw)[0] for raw in _entries(data, "trackers")]
    yield from tracker_faults(trackers, registry)
    for index, raw in enumerate(evaluate):
        spec, faults = _read(EvaluateSpec, raw)
        yield from (fault.under(("evaluate", index)) for fault in faults)
        if spec is not None:
            yield from evaluate_faults(index, spec, scope)


# --- parts -----------------------------------------------------------------------------------


def _entries(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []


def _draft(index: int, raw: Any) -> tuple[Draft, tuple[Fault, ...]]:
    kind = stage_kind(raw)
    name = raw.get("name") if isinstance(raw, dict) else None
    name = name if isinstance(name, str) else ""
    if kind is None:
        return Draft(index, name, None, None), (Fault(("stages", index), NO_STAGE_KIND),)
    spec, faults = _read(STAGE_SPECS[kind], raw)
    return Draft(index, name, kind, spec), tuple(f.under(("stages", index)) for f in faults)


def _read(model: type[S], raw: Any) -> tuple[S | None, tuple[Fault, ...]]:
    """The block without its faulty values (None: it does not stand without), and the faults."""
    spec, faults = validate(model, raw, block_of(model))
    if faults and isinstance(raw, dict):
        sound = copy.deepcopy(raw)
        for fault in faults:
            _drop(sound, fault.path)
        spec, _ = validate(model, sound, block_of(model))
    return spec, faults


def _drop(block: Any, path: Path) -> None:
    """Remove the innermost key of a path; an entry of a list goes with its list."""
    owner: tuple[dict[str, Any], str] | None = None
    for step in path:
        if isinstance(block, dict) and isinstance(step, str):
            if step not in block:
                break  # missing: take away the block that misses it
            owner = (block, step)
        elif not (isinstance(block, list) and isinstance(step, int) and step < len(block)):
            break
        block = block[step]
    if owner is not None:
        owner[0].pop(owner[1], None)


# --- the keys of a block ---------------------------------------------------------------------


def block_of(model: type[Spec], named: str = "") -> BlockAt:
    """What `validate` needs: from the path of a block inside a model to the keys it may hold."""

    def at(path: Path) -> Block:
        inner, owner = model, named or _OWNERS.get(model, model.__name__)
        for step in path:
            field = next((f for n, f in inner.model_fields.items() if step in (n, f.alias)), None)
            found = None if field is None else _model_in(field.annotation)
            if found is not None:
                inner, owner = found, str(step)
        fields = ((name, field) for name, field in inner.model_fields.items() if name != "parts")
        keys = (field.alias or name for name, field in fields)
        return Block("key", owner, tuple(keys))

    return at


_OWNERS: dict[type[Spec], str] = {
    Recipe: "a recipe",
    EvaluateSpec: "an evaluation",
    **{spec: f"a {kind} stage" for kind, spec in STAGE_SPECS.items()},
}


def _model_in(annotation: Any) -> type[Spec] | None:
    """The block inside a type such as `RolloutSpec | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)


# --- JSON Schema -----------------------------------------------------------------------------

_CHOICES = (  # block, key that names a plug-in, kind of plug-in
    ("TrainSpec", "algorithm", "algorithm"),
    ("LabelSpec", "judge", "judge"),
    ("RewardSpec", "judge", "judge"),
    ("DataSpec", "name", "dataset"),
    ("EvaluateSpec", "benchmark", "benchmark"),
    ("JudgeSpec", "name", "judge"),
    ("QuestionsSpec", "name", "benchmark"),
    ("EngineSpec", "name", "engine"),
    ("PluginStageSpec", "stage", "stage"),
    ("TrackerSpec", "name", "tracker"),
)


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe with the plug-ins that are installed."""
    schema = Recipe.model_json_schema(by_alias=True)
    blocks: dict[str, Any] = schema["$defs"]
    for block, key, kind in _CHOICES:
        for name, cls in sorted(registry.kinds[kind].items()):
            options = options_schema(cls, f"#/$defs/{kind}.{name}.{{model}}")
            for inner, definition in options.pop("$defs", {}).items():
                blocks[f"{kind}.{name}.{inner}"] = definition
            blocks[f"{kind}.{name}"] = {"description": _summary(cls), **options}
            blocks[block].setdefault("allOf", []).append(_choice(key, kind, name, options))
    for block, key, kind in _CHOICES:
        if kind not in ("dataset", "engine"):  # those name other things too
            _offer(blocks[block]["properties"][key], sorted(registry.kinds[kind]))
    del blocks["DataSpec"]["properties"]["parts"]
    blocks["DataSpec"] = {"anyOf": [{"type": "string"}, blocks["DataSpec"]]}
    data = {"$ref": "#/$defs/DataSpec"}
    mixture = {"type": "array", "items": data, "minItems": 1}
    blocks["TrainSpec"]["properties"]["data"] = {"anyOf": [data, mixture]}
    del blocks["RewardSpec"]["properties"]["parts"]
    reward = {"$ref": "#/$defs/RewardSpec"}
    rewards = {"type": "array", "items": reward, "minItems": 1}
    blocks["RolloutSpec"]["properties"]["reward"]["anyOf"] = [reward, rewards, {"type": "null"}]
    blocks["QuestionsSpec"] = {"anyOf": [{"type": "string"}, blocks["QuestionsSpec"]]}
    blocks["EngineSpec"] = {"anyOf": [{"type": "string"}, blocks["EngineSpec"]]}
    logged = blocks["LogSamplesSpec"]
    blocks["LogSamplesSpec"] = {"anyOf": [{"type": "boolean"}, {"type": "null"}, logged]}
    blocks["RolloutSpec"]["properties"]["with"]["deprecated"] = True
    blocks["JudgeSpec"] = {"anyOf": [{"type": "string"}, blocks["JudgeSpec"]]}
    blocks["TrackerSpec"] = {"anyOf": [{"type": "string"}, blocks["TrackerSpec"]]}
    judges = blocks["EvaluateSpec"]["properties"]["judge"]
    judges["anyOf"] = [{"$ref": "#/$defs/JudgeSpec"}, {"type": "array", "items": judges["items"]}]
    del judges["type"], judges["items"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _choice(key: str, kind: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """If the key names this plug-in, then `with` holds its options."""
    then: dict[str, Any] = {"properties": {"with": {"$ref": f"#/$defs/{kind}.{name}"}}}
    if options.get("required"):
        then["required"] = ["with"]
    return {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": then}


def _offer(schema: dict[str, Any], names: list[str]) -> None:
    """Only these names are allowed, and package:name (null stays allowed where it was)."""
    text = next((s for s in schema.get("anyOf", ()) if s.get("type") == "string"), schema)
    text.pop("type", None)
    text["anyOf"] = [{"enum": names}, {"type": "string", "pattern": "^[^:]+:.+$"}]


def _summary(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().split("\n\n")[0]
