"""Every key of a recipe, from its JSON schema: type, default, meaning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from markup import code, table

from alignzoo.recipe.file import recipe_schema
from alignzoo.recipe.registry import load_plugins

Schema = Mapping[str, Any]
TITLES = {  # block of the schema -> how the page calls it
    "": "The recipe",
    "TrainSpec": "A stage that trains",
    "DataSpec": "`data:`",
    "OptimSpec": "`train:`",
    "RolloutSpec": "`rollout:`",
    "RewardSpec": "`rollout.reward:`, or an entry of its list",
    "QuestionsSpec": "`questions:` of a reward or a stage that labels",
    "SamplingSpec": "`sampling:`",
    "EngineSpec": "`engine:`",
    "ValidationSpec": "`validation:`",
    "RailsSpec": "`rails:`",
    "LogSamplesSpec": "`log_samples:`",
    "AdapterSpec": "`adapter:`",
    "LoraSpec": "`adapter.lora:`",
    "GenerateSpec": "A stage that generates",
    "LabelSpec": "A stage that labels",
    "PluginStageSpec": "A stage of a plug-in",
    "EvaluateSpec": "An entry of `evaluate:`",
    "PartialSampling": "`evaluate: sampling:`",
    "JudgeSpec": "An entry of a list of judges",
    "ParallelSpec": "`parallel:`",
    "TrackerSpec": "An entry of `trackers:`",
}


def blocks() -> dict[str, Schema]:
    """Block -> its schema, in the order of the page; blocks without a title come last."""
    schema = recipe_schema(load_plugins())
    own = {name: whole(x) for name, x in schema["$defs"].items() if "." not in name}
    order = [*TITLES, *(name for name in own if name not in TITLES)]
    return {name: own[name] if name else schema for name in order if name in own or not name}


def whole(block: Schema) -> Schema:
    """The mapping, of a block that a name may stand for."""
    return next((x for x in block.get("anyOf", ()) if "properties" in x), block)


def page() -> Iterator[str]:
    """A section for each block."""
    known = blocks()
    for name, block in known.items():
        if "properties" not in block:
            continue
        yield f"### {title(name)}\n"
        yield f"{block.get('description', '').split(chr(10) * 2)[0]}\n"
        required = block.get("required", ())
        yield from table(
            ("key", "type", "default", "meaning"),
            [
                (code(key), type_of(x), default(x, key in required), meaning(x, known))
                for key, x in block["properties"].items()
            ],
        )


def title(name: str) -> str:
    """The heading of a block."""
    return TITLES.get(name, f"`{name.removesuffix('Spec').lower()}:`")


def meaning(key: Schema, known: Mapping[str, Schema]) -> str:
    """What a key is for: its own description, else that of the block it holds."""
    if key.get("description"):
        return str(key["description"])
    held = [known[name] for name in references(key) if name in known]
    return "; ".join(dict.fromkeys(x.get("description", "").split("\n")[0] for x in held))


def references(key: Schema) -> list[str]:
    """Blocks that a value may be."""
    parts = [key, *key.get("anyOf", ()), *key.get("oneOf", ()), key.get("items", {})]
    parts += key.get("items", {}).get("oneOf", ())
    return [x["$ref"].rpartition("/")[2] for x in parts if "$ref" in x]


def type_of(key: Schema) -> str:
    """A short word for what may stand there."""
    if "enum" in key:
        names = [str(x) for x in key["enum"]]
        return ", ".join(map(code, names)) if len(names) <= 8 else "a name"
    if "const" in key:
        return code(str(key["const"]))
    if "$ref" in key:
        name = key["$ref"].rpartition("/")[2]
        anchor = title(name).replace("`", "").lower()
        return f"[{title(name)}](#{_slug(anchor)})"
    for several in ("anyOf", "oneOf"):
        if several in key:
            kinds = [type_of(x) for x in key[several] if x.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    return _plain(key)


def _plain(key: Schema) -> str:
    kind = str(key.get("type", "anything"))
    if kind == "array":
        inner = key.get("items") or {}
        return (
            f"list of {type_of(inner)}" if inner else f"list of {len(key['prefixItems'])} numbers"
        )
    if kind == "object":
        inner = key.get("additionalProperties")
        return f"mapping to {type_of(inner)}" if isinstance(inner, dict) else "mapping"
    words = {"string": "text", "integer": "whole number", "boolean": "`true` or `false`"}
    return ", ".join([words.get(kind, kind), *_bounds(key)])


def _bounds(key: Schema) -> Iterator[str]:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    for bound, sign in signs.items():
        if bound in key:
            yield (
                f"{sign} {key[bound]:g}"
                if key[bound] < 2**31
                else f"{sign} 2^{key[bound].bit_length() - 1}"
            )


def default(key: Schema, required: bool) -> str:
    """What holds where a recipe says nothing."""
    if required:
        return "required"
    value = key.get("default")
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, dict):
        return "its own defaults"
    return code(json.dumps(value).strip('"'))


def _slug(heading: str) -> str:
    """The anchor that GitHub and MyST give a heading."""
    kept = "".join(x for x in heading if x.isalnum() or x in " -_")
    return kept.replace(" ", "-")
