"""Whether a method and the settings it trains with go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.recipe.blocks import SamplingSpec, TrainSpec
from alignzoo.recipe.faults import Fault


def training_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """Faults of batches, buffers and sampling; paths start at the stage's keys."""
    yield from _size_faults(spec, cls)
    yield from _reuse_faults(spec, cls)
    yield from _sampling_faults(spec, cls)


def _size_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """A method that compares the items of a batch needs some."""
    if spec.train.batch_size < cls.least_items:
        what = f"{cls.name} compares the items of a batch; make it {cls.least_items} or more"
        yield Fault(("train", "batch_size"), what)


def _reuse_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """Without an importance ratio, a second update on the same answers has a wrong gradient."""
    rollout = spec.rollout
    if rollout is None or not cls.single_update:
        return
    why = f"{cls.name} has no importance ratio, so answers serve one update"
    buffer = rollout.prompts * rollout.samples_per_prompt
    if rollout.epochs > 1:
        yield Fault(("rollout", "epochs"), f"{why}; make it 1")
    if buffer > spec.train.batch_size:
        what = f"{why}; sample {spec.train.batch_size} (train.batch_size), not {buffer}"
        yield Fault(("rollout",), what)


def _sampling_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """Who wants to be stopped is stopped before anything is sampled."""
    found = off_policy(spec, cls)
    if found and spec.rails.on_breach == "stop":
        yield Fault(("rollout", "sampling"), f"{off_policy_note(found, cls)} (on_breach: stop)")


def off_policy(spec: TrainSpec, cls: type[Algorithm[Any]]) -> list[str]:
    """The settings under which samples are not the policy's, where the loss takes them for such."""
    if spec.rollout is None or not cls.assumes_policy_samples:
        return []
    neutral = SamplingSpec()
    names = ("temperature", "top_p", "top_k", "min_new_tokens")
    given = {name: getattr(spec.rollout.sampling, name) for name in names}
    return [f"{name} {x:g}" for name, x in given.items() if x != getattr(neutral, name)]


def off_policy_note(settings: list[str], cls: type[Algorithm[Any]]) -> str:
    """What these settings mean for a method, in one sentence."""
    return (
        f"{cls.name} takes answers for samples of the policy, but with {', '.join(settings)} they "
        "are samples of another distribution, and its gradient is biased; sample at temperature 1 "
        "with top_p 1, top_k 0 and min_new_tokens 0"
    )
