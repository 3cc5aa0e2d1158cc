"""Where a run and its pieces lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from alignzoo.contract.errors import AlignzooError
from alignzoo.contract.evaluation import Judge
from alignzoo.recipe.blocks import EvaluateSpec, Recipe
from alignzoo.recipe.mixture import written
from alignzoo.recipe.options import try_options
from alignzoo.recipe.registry import Registry
from alignzoo.store.files import digest_of_value

WATCHING = ("parallel", "trackers")  # keys of a recipe that change no result
LONGEST = 120  # characters of a folder's name; file systems allow 255 bytes


Options: TypeAlias = Mapping[str, Any]
Bare: TypeAlias = Callable[[str, Options], Options]  # a judge's name and its options


def default_folder(recipe: Recipe, registry: Registry) -> Path:
    """runs/<name>-<hash>: recipes that decide the same share a folder, others never do."""
    return Path("runs") / f"{recipe.name}-{digest_of_value(deciding(recipe, registry))[:8]}"


def deciding(recipe: Recipe, registry: Registry) -> dict[str, Any]:
    """The resolved recipe without what changes no result: how the work lies over processes, so that
    a run goes on under another layout, who watches it, the samples that are logged for people, what
    judges may cost, and where they are reached at which price.
    """
    results = {key: x for key, x in resolved(recipe).items() if key not in WATCHING}
    stages = [{k: x for k, x in s.items() if k != "log_samples"} for s in results["stages"]]
    bare = partial(_bare, registry)
    measured = _of_judges(results["evaluate"], bare)
    return {**results, "stages": _of_judges(stages, bare), "evaluate": measured}


def _of_judges(value: Any, bare: Bare) -> Any:
    """A block without the limit of what replies may cost and its judges' options that decide
    nothing; what plug-ins call options stays as it is.
    """
    if isinstance(value, list):
        return [_of_judges(x, bare) for x in value]
    if not isinstance(value, dict):
        return value
    kept = {
        key: x if key == "with" else _of_judges(x, bare)
        for key, x in value.items()
        if key != "max_cost"
    }
    match kept.get("judge"):
        case str(name):
            return kept | {"with": bare(name, kept.get("with", {}))}
        case dict(one):
            return kept | {"judge": one | {"with": bare(one["name"], one.get("with", {}))}}
        case list(several):
            judges = [one | {"with": bare(one["name"], one.get("with", {}))} for one in several]
            return kept | {"judge": judges}
    return kept


def _bare(registry: Registry, name: str, options: Options) -> Options:
    """The options of a judge without which it would be another, by what it says decides."""
    cls = registry.judges.get(name)
    whole = _said(cls, options)
    for key in options if whole is not None else ():
        fewer = {other: x for other, x in options.items() if other != key}
        options = fewer if _said(cls, fewer) == whole else options
    return options


def _said(cls: type[Judge] | None, options: Options) -> Options | None:
    """None where there is no such judge, or what it reads is not there."""
    built, _ = (None, ()) if cls is None else try_options(cls, options)
    try:
        return None if built is None else dict(built.identity())
    except AlignzooError:
        return None


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe with every default, as JSON-able values that load as the same recipe."""
    return dict(written(recipe.model_dump(mode="json", by_alias=True, exclude_none=True)))


def runs_in(folder: Path) -> list[Path]:
    """The folders of runs directly in a folder, as `run --seeds` and `run --sweep` write them."""
    return sorted(file.parent for file in folder.glob("*/run.json"))


def stage_folder(run: Path, index: int, name: str) -> Path:
    """stages/01-sft."""
    return run / "stages" / f"{index:02d}-{name}"


def evaluation_folder(run: Path, number: int, spec: EvaluateSpec) -> Path:
    """evaluations/01-benchmark; it holds a folder per model."""
    return run / "evaluations" / f"{number:02d}-{spec.benchmark}"


def model_folder(model: str) -> str:
    """A model's name as the name of a folder, another one for every model.

    A name that does not come back from it, such as one of a long path, gets a digest before it.
    """
    name = model.strip("./").replace("/", "--")
    if name.replace("--", "/") == model and len(name) <= LONGEST:
        return name
    return f"{digest_of_value(model)[:8]}-{name[-LONGEST:]}"
