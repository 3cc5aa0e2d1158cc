"""How much the hidden states take that a stage would keep, and what the disk has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from alignzoo.contract.errors import sized
from alignzoo.contract.frozen import reread
from alignzoo.plan.standing import REUSED, Standings
from alignzoo.recipe.blocks import Recipe, TrainSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.roles import bound_roles
from alignzoo.store.belonging import Known
from alignzoo.store.files import cache_folder
from alignzoo.store.sizes import most_states

BYTES = 4  # of a number; no model computes its states in a wider type


def keeping_notes(recipe: Recipe, registry: Registry, known: Standings) -> Iterator[str]:
    """A sentence for every stage with `cache_teacher` that is not done.

    The stage itself counts exactly, and stops before a model is read where there is no room.
    """
    place = cache_folder()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    models = Known(recipe, registry, known.finished)
    pending = [one.spec for one in known.stages if one.status != REUSED]
    for spec in (x for x in pending if isinstance(x, TrainSpec) and x.train.cache_teacher):
        told, most = _told(spec, registry, models)
        fits = "" if most is None or most <= free else ", which may not do"
        yield f"{spec.name}: {told}; {place} has {sized(free)} free{fits}"


def _told(spec: TrainSpec, registry: Registry, models: Known) -> tuple[str, int | None]:
    """A sentence, and the bytes at most, where they are known."""
    cls = registry.find("algorithm", spec.algorithm)
    roles, bound = reread(build_options(cls, spec.with_)), bound_roles(spec, cls)
    found = [models.lineage(bound[role]) for role in roles]
    widths = [x.hidden for x in found if x is not None and x.hidden is not None]
    positions = most_states(spec, registry, models.finished)
    what = f"cache_teacher keeps hidden states of {' and '.join(roles)}"
    if positions is None or len(widths) < len(roles):
        return f"{what}: positions of answers x H x {BYTES} bytes for each", None
    shown, most = " + ".join(f"{width:,}" for width in widths), positions * sum(widths) * BYTES
    rule = f"{positions:,} positions x (H {shown}) x {BYTES} bytes"
    return f"{what}: at most {sized(most)} ({rule})", most
