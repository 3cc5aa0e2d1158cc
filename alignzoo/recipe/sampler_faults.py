"""Which mixtures of models a rollout may be sampled from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import PluginError, suggest
from alignzoo.contract.moving import moving_of
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.faults import Fault
from alignzoo.recipe.options import try_options
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.roles import POLICY


def sampler_faults(
    spec: TrainSpec, cls: type[Algorithm[Any]], registry: Registry
) -> Iterator[Fault]:
    """A role that cannot be mixed in, or an engine that samples from one model alone."""
    if spec.rollout is None or spec.rollout.sampler is None:
        return
    sampler = spec.rollout.sampler
    path = ("rollout", "sampler", "geometric" if sampler.mix is None else "mix")
    method, _ = try_options(cls, spec.with_)
    for role in sampler.weights:
        if what := _unfit(role, cls, method):
            yield Fault((*path, role), what, at_key=True)
    engine = registry.engines.get(spec.rollout.engine.name)
    if engine is not None and not engine.mixes:
        what = f"'{engine.name}' samples from the policy alone and cannot mix it with other roles"
        yield Fault(("rollout", "sampler"), f"{what}; take the engine transformers", at_key=True)


def _unfit(role: str, cls: type[Algorithm[Any]], method: Any) -> str:
    """What keeps a role out of a mixture; '' if nothing."""
    known = cls.roles.get(role)
    fit = [name for name, r in cls.roles.items() if r.head == "lm"]
    if known is None:
        return f"unknown role{suggest(role, fit)} ({cls.name} has: {', '.join(cls.roles)})"
    if known.head != "lm":
        return f"'{role}' has no vocabulary to draw tokens from; mix roles that are language models"
    if role == POLICY:
        return ""
    if known.trainable:
        return f"'{role}' learns too; mix the policy with frozen roles"
    if known.sees:
        return f"'{role}' reads other prompts than the policy; mix roles that read the same"
    try:
        moves = method is not None and role in moving_of(method)
    except PluginError:
        moves = False  # said where moving roles are looked at
    return f"'{role}' moves with the policy; mix the policy with frozen roles" if moves else ""
