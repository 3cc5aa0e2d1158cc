"""The runs of a study: where they lie, and whether they are finished work of the present code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignzoo.contract.errors import AlignzooError
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import Registry
from alignzoo.store.files import digest_of_value, read_json, write_json
from alignzoo.store.folders import deciding, evaluation_folder, model_folder, stage_folder
from alignzoo.store.identity import evaluation_identity, stage_identity
from alignzoo.store.inputs import evaluated_models
from alignzoo.store.records import Identity, changed_inputs, state_of

CLOCK = ".cpu.json"


@dataclass(frozen=True)
class SeedRuns:
    """The runs of one seed: a recipe with its seed, and a folder, for each recipe of the world."""

    seed: int
    recipes: tuple[Recipe, ...]
    folders: tuple[Path, ...]


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with another seed."""
    return recipe.model_copy(update={"seed": seed})


def recipe_digest(recipe: Recipe, registry: Registry) -> str:
    """What decides a recipe's results but its seed."""
    return digest_of_value({k: x for k, x in deciding(recipe, registry).items() if k != "seed"})[
        :16
    ]


def folder_of(world: Path, recipe: Recipe, changed: Sequence[str], registry: Registry) -> Path:
    """WORLD/RECIPE/seed-N; a recipe that --set changed has a folder of its own."""
    own = f"{recipe.name}-{recipe_digest(recipe, registry)[:8]}" if changed else recipe.name
    return world / own / f"seed-{recipe.seed}"


def unfinished(folder: Path, recipe: Recipe, registry: Registry) -> str:
    """Why a folder does not hold all of a recipe's work, done by the code that is installed;
    empty where it does. Looks at every output's digest.
    """
    outputs: dict[str, Path] = {}
    try:
        for index, spec in enumerate(recipe.stages, 1):
            own = stage_folder(folder, index, spec.name)
            identity = stage_identity(spec, recipe, registry, outputs)
            if why := _lacks(own, identity, f"stage {spec.name}"):
                return why
            outputs[spec.name] = own
        for number, block in enumerate(recipe.evaluate, 1):
            for model in evaluated_models(block, recipe, registry):
                own = evaluation_folder(folder, number, block) / model_folder(model)
                identity = evaluation_identity(block, model, recipe, registry, outputs)
                if why := _lacks(own, identity, f"{block.benchmark} of {model}"):
                    return why
    except AlignzooError as error:
        return str(error)
    return ""


def _lacks(folder: Path, identity: Identity, what: str) -> str:
    state = state_of(folder, identity)
    if state == "done":
        return ""
    if state == "other" and (changed := changed_inputs(folder, identity)):
        return f"{what}: made with other {', '.join(changed)} than now"
    words = {
        "new": "not begun",
        "running": "not finished",
        "damaged": "its files changed since",
        "below": "its judges left more without a verdict than the recipe takes",
    }
    return f"{what}: {words.get(state, 'not made by this recipe')}"


# --- what the runs of a seed cost --------------------------------------------------------------


def add_seconds(folder: Path, seconds: float | None, *, whole: bool) -> None:
    """Note CPU seconds of one sitting, of all its processes together, beside a run; None: they are
    not known, nor are those of the run then. `whole`: no earlier sitting was lost.
    """
    file = folder.with_name(folder.name + CLOCK)
    before = read_json(file).get("cpu_seconds")
    known = 0.0 if whole and before is None else before
    if seconds is None:
        write_json(file, {"cpu_seconds": None})
    elif isinstance(known, int | float):
        write_json(file, {"cpu_seconds": round(known + seconds, 1)})


def seconds_of(folders: Sequence[Path]) -> float | None:
    """CPU seconds of all runs of a seed; None where one of them is not known."""
    found = [read_json(f.with_name(f.name + CLOCK)).get("cpu_seconds") for f in folders]
    known = [float(x) for x in found if isinstance(x, int | float)]
    return round(sum(known), 1) if len(known) == len(found) else None


def versions_of(folders: Sequence[Path]) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Versions and plug-ins that the runs note; of the first, for all have the same identity."""
    record = read_json(folders[0] / "run.json")
    versions = {str(key): str(x) for key, x in dict(record.get("versions", {})).items()}
    return versions, tuple(map(str, record.get("plugins", ())))
