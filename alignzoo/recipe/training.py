"""Whether a method and the settings it trains with go together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.reach import context_and_why
from alignzoo.contract.types import RolloutBatch, TextBatch
from alignzoo.recipe.blocks import SamplingSpec, TrainSpec
from alignzoo.recipe.faults import Fault
from alignzoo.recipe.mixing import placed
from alignzoo.recipe.roles import main_role

PEFT = "0.21"  # whose layers and files the engine knows


def training_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """Faults of batches, buffers and sampling; paths start at the stage's keys."""
    yield from _size_faults(spec, cls)
    yield from _sampling_faults(spec, cls)
    yield from _turn_faults(spec, cls)
    yield from _patience_faults(spec)
    yield from _adapter_faults(spec, cls)


def _patience_faults(spec: TrainSpec) -> Iterator[Fault]:
    """Patience that outlasts the steps ends nothing."""
    held, steps = spec.validation, spec.train.steps
    if held is None or held.patience is None or steps is None:
        return
    first = held.every * (1 + held.patience)  # the first validation is always the best so far
    if first >= steps:
        what = f"could end training at step {first} at first, and train.steps is {steps}"
        what += "; make it smaller, or `every`"
        yield Fault(("validation", "patience"), what)


def _turn_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """Several turns of a chat are learnt by methods that imitate texts, and by no others."""
    imitates = issubclass(cls.batch, TextBatch) and not issubclass(cls.batch, RolloutBatch)
    validation = [(spec.validation.data, ("validation", "data"))] if spec.validation else []
    for data, path in [*placed(spec.data, ("data",)), *validation]:
        if data.learn == "all" and (spec.rollout is not None or not imitates):
            why = f"{cls.name} learns from one answer to a prompt"
            yield Fault((*path, "learn"), f"{why}; `all` is for methods on given texts")


def _adapter_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """An adapter needs peft, and a role that is a language model."""
    if spec.adapter is None:
        return
    if cls.roles[main_role(cls)].head == "scalar":
        what = f"{cls.name} learns a new scalar head, and an adapter holds none; remove this"
        yield Fault(("adapter",), what, at_key=True)
    found = peft_version()
    if found is None:
        what = "needs peft, which is not installed: pip install 'alignzoo[lora]'"
        yield Fault(("adapter", "lora"), what, at_key=True)
    elif not found.startswith(f"{PEFT}."):
        what = f"needs peft {PEFT}, and {found} is installed: pip install 'alignzoo[lora]'"
        yield Fault(("adapter", "lora"), what, at_key=True)


def peft_version() -> str | None:
    """Of the installed peft, if any; does not import it."""
    try:
        return version("peft")
    except PackageNotFoundError:
        return None


def length_faults(spec: TrainSpec, models: Iterable[str]) -> Iterator[Fault]:
    """A sequence must fit every model's context, as far as folders on this machine say it."""
    validation = [(spec.validation.data, ("validation", "data"))] if spec.validation else []
    contexts = {name: folder_context(name) for name in sorted(models)}
    for data, path in [*placed(spec.data, ("data",)), *validation]:
        for name, (context, why) in contexts.items():
            if data.max_length is not None and context is not None and data.max_length > context:
                wide = too_wide(data.max_length, name, f"{context}{why}")
                yield Fault((*path, "max_length"), wide)


def too_wide(max_length: int, name: str, context: str) -> str:
    """That sequences of this length do not fit, with both numbers."""
    return f"{max_length} is more than the context of '{name}', which is {context}"


def folder_context(name: str) -> tuple[int | None, str]:
    """The longest sequence of a model's folder by its config.json, None if it says none; and why it
    is not the stated one.
    """
    file = Path(name) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        text = config.get("text_config") or config
        found = text.get("max_position_embeddings") or text.get("n_positions")
        return context_and_why(found if isinstance(found, int) else None, text.get)
    except (OSError, ValueError, AttributeError):
        return None, ""  # no folder, or a damaged one, which loading names


def _size_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """A method that compares the items of a batch needs some."""
    if spec.train.batch_size < cls.least_items:
        what = f"{cls.name} compares the items of a batch; make it {cls.least_items} or more"
        yield Fault(("train", "batch_size"), what)


def _sampling_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """Who wants to be stopped is stopped before anything is sampled."""
    found = off_policy(spec, cls)
    if found and spec.rails.on_breach == "stop":
        (first, *_) = found
        yield Fault(("rollout", first), f"{off_policy_note(found, cls)} (on_breach: stop)")


def off_policy(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Mapping[str, str]:
    """The keys of a rollout under which samples are not the policy's, where the loss takes them for
    such, and in words what they say.
    """
    if spec.rollout is None or not cls.assumes_policy_samples:
        return {}
    neutral, share = SamplingSpec(), spec.rollout.share
    names = ("temperature", "top_p", "top_k", "min_new_tokens")
    given = {name: getattr(spec.rollout.sampling, name) for name in names}
    shaped = [f"{name} {x:g}" for name, x in given.items() if x != getattr(neutral, name)]
    found = {
        "sampling": ", ".join(shaped),
        "sampler": "a sampler of several roles" if spec.rollout.sampler else "",
        "share": f"share {share:g}" if share != 1 else "",
    }
    return {key: words for key, words in found.items() if words}


def off_policy_note(settings: Mapping[str, str], cls: type[Algorithm[Any]]) -> str:
    """What these settings mean for a method, in one sentence."""
    alone = ", and from the policy alone" if "sampler" in settings else ""
    every = ", and for every prompt (rollout.share 1)" if "share" in settings else ""
    return (
        f"{cls.name} takes answers for samples of the policy, but with "
        f"{', '.join(settings.values())} they are samples of another distribution, and its "
        "gradient is biased; sample at temperature 1 with top_p 1, top_k 0 and min_new_tokens 0"
        f"{every}{alone}"
    )
