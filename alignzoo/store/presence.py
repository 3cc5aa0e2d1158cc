"""Whether what a recipe reads can be had, told all at once before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import AlignzooError, suggest
from alignzoo.contract.stage import ModelRef
from alignzoo.data.samples import SUFFIXES, cached_file
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.faults import Fault, FaultyRecipe
from alignzoo.recipe.faults import Path as Place
from alignzoo.recipe.observers import built_trackers
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.spec import Spec
from alignzoo.store.identity import stated_identity
from alignzoo.store.inputs import INITIAL, data_of, model_ref, models_of

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
OFFLINE = ", and this machine is offline"
PLACES = {"validation": ("validation", "data")}


class AbsentInputs(FaultyRecipe):
    """Files, folders and models that a recipe names and nobody can give."""


@dataclass(frozen=True)
class Absence:
    """Something that this machine does not have."""

    fault: Fault
    ref: ModelRef | None = None  # a model that a hub may give
    final: bool = True  # nobody can give it


def check_inputs(recipe: Recipe, registry: Registry) -> tuple[str, ...]:
    """Notes about models and data that the hub would have to give; nobody asks it.

    Raises AbsentInputs with every file and folder that is not there.
    """
    found = list(_absences(recipe, registry))
    if faults := [one.fault for one in found if one.final]:
        raise AbsentInputs(faults)
    return tuple(f"{'.'.join(map(str, one.fault.path))}: {one.fault.what}" for one in found)


def require_inputs(recipe: Recipe, registry: Registry) -> None:
    """Raise AbsentInputs with every file, folder, model and data set that cannot be had.

    The hub is asked about models that this machine has nothing of.
    """
    found = _absences(recipe, registry)
    gone = [x.fault for x in found if x.final or x.ref is None or not fetch_config(x.ref)]
    if gone:
        raise AbsentInputs(gone)


def require_model(ref: ModelRef, registry: Registry) -> None:
    """Raise AlignzooError for a folder that is not there, or offline for a model that is not."""
    what = _absence(ref, registry)
    if what and (ref.names_folder or _offline()):
        raise AlignzooError(what)


def _absences(recipe: Recipe, registry: Registry) -> Iterator[Absence]:
    """What this machine does not have, each place once."""
    stages = {stage.name for stage in recipe.stages}
    yield from _absent_data(recipe, registry, stages)
    for index, (name, tracker) in enumerate(built_trackers(recipe, registry).items()):
        if what := tracker.lacks():
            yield Absence(Fault(("trackers", index), f"{name}: {what}"))
    places: dict[Place, str] = {
        ("model",) if name == INITIAL else place: name
        for place, name in _models(recipe)
        if name not in stages
    }
    for place, name in places.items():
        ref = model_ref(name, recipe, {})
        if what := _absence(ref, registry):
            yield Absence(Fault(place, what), ref, final=ref.names_folder)


def _absent_data(recipe: Recipe, registry: Registry, stages: set[str]) -> Iterator[Absence]:
    blocks: list[tuple[Place, Spec]] = [
        *((("stages", index), stage) for index, stage in enumerate(recipe.stages)),
        *((("evaluate", index), spec) for index, spec in enumerate(recipe.evaluate)),
    ]
    for at, block in blocks:
        for key, data in data_of(block).items():
            path = Path(data.name)
            if data.name in stages or data.name in registry.datasets or path.exists():
                continue
            place: Place = (*at, *PLACES.get(key, _steps(key)), "name")
            if path.is_absolute() or path.name.endswith(SUFFIXES):
                what = f"{data.name}: no such file"
                yield Absence(Fault(place, what))
            elif _offline() and not _prepared(data.name):
                told = f"no stage, file or plug-in's data is called '{data.name}'"
                what = f"{told}; so it must come from the hub{OFFLINE}"
                yield Absence(Fault(place, what), final=False)


def _steps(key: str) -> Place:
    """data.1 -> ("data", 1)."""
    return tuple(int(step) if step.isdecimal() else step for step in key.split("."))


def _prepared(name: str) -> bool:
    """Whether `datasets` has read a hub's data before; offline it finds nothing else."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    folder = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()

    def plain(text: str) -> str:  # CamelCase becomes snake_case there, and a/b a___b
        return text.replace("/", "").replace("_", "").lower()

    return any(plain(path.name) == plain(name) for path in folder.glob("*") if path.is_dir())


def _models(recipe: Recipe) -> Iterator[tuple[Place, str]]:
    """Every place where a recipe names a model, with the name."""
    for index, stage in enumerate(recipe.stages):
        for key, name in models_of(stage).items():
            yield ("stages", index, *_place(stage, key)), name
    for index, spec in enumerate(recipe.evaluate):
        at: Place = ("evaluate", index)
        yield from (((*at, "models", k), name) for k, name in enumerate(spec.models or ()))
        yield from (((*at, "kl_to", k), name) for k, name in enumerate(spec.kl_to))
        if spec.baseline is not None:
            yield (*at, "baseline"), spec.baseline
        for reward, of in spec.rewards.items():
            yield from (((*at, "rewards", reward, key), name) for key, name in of.models.items())


def _place(stage: Spec, key: str) -> Place:
    """Where a stage names a model that `models_of` gives under this key."""
    if key in getattr(stage, "models", {}):
        return ("models", key)
    if key.partition(".")[0] == "reward":  # or reward.1
        return ("rollout", *_steps(key), "model")
    return tuple(key.split(".", 1))


def _absence(ref: ModelRef, registry: Registry) -> str:
    """That this machine does not have a model, or an empty string."""
    if ref.path.exists() or _plugin_knows(ref, registry):
        return ""
    if ref.names_folder:
        return f"{ref.name}: no such folder{_near_folder(ref.path)}"
    if _cached(ref):
        return ""
    told = f"no stage, folder or plug-in's model is called '{ref.name}'{_near(ref, registry)}"
    return f"{told}; so it must come from the hub{OFFLINE if _offline() else ''}"


def _near_folder(path: Path) -> str:
    """A question, when there is a folder whose path differs in one name that is nearly so."""
    odd = next(part for part in (path, *path.parents) if part.parent.is_dir())
    rest = path.relative_to(odd)
    there = {other.name: other / rest for other in odd.parent.iterdir() if (other / rest).is_dir()}
    near = suggest(odd.name, there)
    return near.replace(name := near.partition("'")[2][:-2], str(there[name])) if near else ""


def _near(ref: ModelRef, registry: Registry) -> str:
    """A question, when a model of a plug-in, of this folder or of the hub's cache is near."""
    from huggingface_hub.constants import HF_HUB_CACHE

    kinds = (name.partition(".")[0] for known in registry.kinds.values() for name in known)
    cached = (path.name.split("--") for path in Path(HF_HUB_CACHE).glob("models--*"))
    folders = (path.name for path in Path().glob("*") if (path / "config.json").is_file())
    near = suggest(ref.name, {*folders, *kinds, *("/".join(parts[1:]) for parts in cached)})
    other = replace(ref, name=(name := near.partition("'")[2][:-2]), revision=None)
    there = name and (_cached(other) or other.path.exists() or _plugin_knows(other, registry))
    return near if there else ""


def _plugin_knows(ref: ModelRef, registry: Registry) -> bool:
    """Whether a plug-in loads a model of that name.

    One that states no identities may know any; loading is the only way to ask it.
    """
    if stated_identity(ref, registry) is not None:
        return True
    hooks = registry.hooks
    stating = {one.plugin_name for one in hooks.identity.get_hookimpls()}
    if {one.plugin_name for one in hooks.load_model.get_hookimpls()} - stating:
        return True
    try:
        return hooks.load_model(ref=ref, role=Role()) is not None
    except Exception:  # it knows the name; its stage says what is wrong
        return True


def _cached(ref: ModelRef) -> bool:
    """Whether this machine has the weights, or, where it may fetch them, knows the model."""
    names = WEIGHTS if _offline() else ("config.json",)
    return any(cached_file(ref.name, name, "model", ref.revision) for name in names)


def _offline() -> bool:
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())


def fetch_config(ref: ModelRef) -> bool:
    """Get a hub model's config.json, by which its commit is known; False where there is none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        hf_hub_download(ref.name, "config.json", revision=ref.revision)
    except (OSError, HfHubHTTPError, HFValidationError):
        return False
    return True
