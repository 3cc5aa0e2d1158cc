"""Whether what a recipe reads can be had, told all at once before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alignzoo.contract.algorithm import Role
from alignzoo.contract.stage import ModelRef
from alignzoo.data.samples import SUFFIXES, cached_file
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.faults import Fault, FaultyRecipe
from alignzoo.recipe.faults import Path as Place
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.spec import Spec
from alignzoo.store.identity import stated_identity
from alignzoo.store.inputs import INITIAL, data_of, model_ref, models_of

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PLACES = {"reward": ("rollout", "reward", "model"), "validation": ("validation", "data")}


class AbsentInputs(FaultyRecipe):
    """Files, folders and models that a recipe names and nobody can give."""


def check_inputs(recipe: Recipe, registry: Registry) -> tuple[str, ...]:
    """Notes about models that the hub would have to give; nobody asks it.

    Raises AbsentInputs with every file and folder that is not there.
    """
    found = list(_absences(recipe, registry))
    if faults := [fault for fault, ref in found if ref is None or ref.names_folder]:
        raise AbsentInputs(faults)
    return tuple(f"{'.'.join(map(str, fault.path))}: {fault.what}" for fault, _ in found)


def require_inputs(recipe: Recipe, registry: Registry) -> None:
    """Raise AbsentInputs with every file, folder and model that cannot be had.

    The hub is asked about models that this machine has nothing of.
    """
    found = _absences(recipe, registry)
    gone = [f for f, ref in found if ref is None or ref.names_folder or not fetch_config(ref)]
    if gone:
        raise AbsentInputs(gone)


def _absences(recipe: Recipe, registry: Registry) -> Iterator[tuple[Fault, ModelRef | None]]:
    """Files (None) and models that this machine does not have, each place once."""
    stages = {stage.name for stage in recipe.stages}
    yield from ((fault, None) for fault in _absent_files(recipe, registry, stages))
    places: dict[Place, str] = {
        ("model",) if name == INITIAL else place: name
        for place, name in _models(recipe)
        if name not in stages
    }
    for place, name in places.items():
        ref = model_ref(name, recipe, {})
        if what := _absence(ref, registry):
            yield Fault(place, what), ref


def _absent_files(recipe: Recipe, registry: Registry, stages: set[str]) -> Iterator[Fault]:
    for index, stage in enumerate(recipe.stages):
        for key, data in data_of(stage).items():
            path = Path(data.name)
            if data.name in stages or data.name in registry.datasets or path.exists():
                continue
            if path.is_absolute() or path.name.endswith(SUFFIXES):
                place: Place = ("stages", index, *PLACES.get(key, (key,)), "name")
                yield Fault(place, f"{data.name}: no such file")


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


def _place(stage: Spec, key: str) -> Place:
    """Where a stage names a model that `models_of` gives under this key."""
    if key in getattr(stage, "models", {}):
        return ("models", key)
    return PLACES.get(key) or tuple(key.split(".", 1))


def _absence(ref: ModelRef, registry: Registry) -> str:
    """That this machine does not have a model, or an empty string."""
    if ref.path.exists() or _plugin_knows(ref, registry):
        return ""
    if ref.names_folder:
        return f"{ref.name}: no such folder"
    if _cached(ref):
        return ""
    told = f"no stage, folder or plug-in's model is called '{ref.name}'"
    return f"{told}, so a run must get it from the hub{', and is offline' if _offline() else ''}"


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
