"""What a recipe cannot ask of a method some of whose roles stay, move, or read other prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import PluginError
from alignzoo.contract.frozen import reread
from alignzoo.contract.moving import anchors, moving_of
from alignzoo.contract.views import seen_by
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.faults import Fault
from alignzoo.recipe.mixing import placed
from alignzoo.recipe.options import try_options
from alignzoo.recipe.yardsticks import taken_against


def special_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """A value that means another thing at every step, a model that no role would be, turns of a
    chat without a view.
    """
    method, _ = try_options(cls, spec.with_)
    if method is None:
        return  # its options have faults of their own
    try:
        moving, sees = moving_of(method), seen_by(method)
    except PluginError as error:
        yield Fault(("algorithm",), str(error))
        return
    for role in (role for role, rule in moving.items() if rule.shares and role in spec.roles):
        what = f"it is '{moving[role].of}' at every moment; take this out"
        yield Fault(("roles", role), what, at_key=True)
    yield from _lost_measures(spec, method, sorted(moving))
    if spec.train.cache_teacher and (why := _kept_in_vain(spec, method)):
        yield Fault(("train", "cache_teacher"), f"{why}; take it out", at_key=True)
    for part, path in placed(spec.data, ("data",)) if sees else ():
        if part.learn == "all":
            what = f"'{min(sees)}' sees other prompts, and these are made before a last answer"
            yield Fault((*path, "learn"), f"{what} alone; take it out")


def _kept_in_vain(spec: TrainSpec, method: Any) -> str:
    """Why nothing would be kept of frozen models, if so."""
    if spec.rollout is not None:
        return "has no effect: answers are sampled anew, so no hidden state comes twice"
    if not reread(method):
        why = "no frozen model again in every epoch, or keeps its values per token already"
        return f"has no effect: {method.name} reads {why}"
    return ""


def _lost_measures(spec: TrainSpec, method: Any, moving: list[str]) -> Iterator[Fault]:
    """What is taken against two references at two steps says nothing of the way between them."""
    if not moving:
        return
    why = f"'{moving[0]}' moves with the policy"
    if spec.validation is not None:
        metric, relative = spec.validation.metric, taken_against(method, moving)
        if metric in relative:
            free = ", ".join(x for x in method.metrics if x not in relative)
            what = f"{why}, and {metric} is taken against it, so its values at two steps cannot be "
            what += (
                f"compared; name {free}" if free else "compared, nor those of others; take it out"
            )
            yield Fault(("validation", "metric"), what)
    if spec.rails.max_kl is not None and not anchors(method):
        what = f"{why}, and no other role stays at its start to measure from; take it out"
        yield Fault(("rails", "max_kl"), what)
