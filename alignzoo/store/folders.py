"""Where a run and its pieces lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignzoo.recipe.blocks import EvaluateSpec, Recipe
from alignzoo.recipe.mixture import written
from alignzoo.store.files import digest_of_value

WATCHING = ("parallel", "trackers")  # keys of a recipe that change no result
LONGEST = 120  # characters of a folder's name; file systems allow 255 bytes


def default_folder(recipe: Recipe) -> Path:
    """runs/<name>-<hash>: recipes that decide the same share a folder, others never do."""
    return Path("runs") / f"{recipe.name}-{digest_of_value(deciding(recipe))[:8]}"


def deciding(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe without what changes no result: how the work lies over processes, so that
    a run goes on under another layout, who watches it, and the samples that are logged for people.
    """
    results = {key: x for key, x in resolved(recipe).items() if key not in WATCHING}
    stages = [{k: x for k, x in s.items() if k != "log_samples"} for s in results["stages"]]
    return {**results, "stages": _without_limits(stages)}


def _without_limits(value: Any) -> Any:
    """What the replies of judges may cost decides when work stops, not what comes of it."""
    if isinstance(value, dict):
        kept = ((key, x) for key, x in value.items() if key != "max_cost")
        return {key: x if key == "with" else _without_limits(x) for key, x in kept}
    return [_without_limits(x) for x in value] if isinstance(value, list) else value


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
