"""The optimisers that a recipe may name, and the options that each takes."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from alignzoo.contract.errors import suggest
from alignzoo.recipe.faults import Fault
from alignzoo.recipe.spec import OptimSpec

BESIDE = ("betas", "eps", "weight_decay")  # keys of `train` that go to the optimiser
ADAM = ("AdamW", BESIDE)
OPTIMIZERS: Mapping[str, tuple[str, tuple[str, ...]]] = {  # name -> class of torch.optim, its keys
    "adamw": ADAM,
    "adam": ("Adam", BESIDE),
    "adamax": ("Adamax", BESIDE),
    "nadam": ("NAdam", BESIDE),
    "radam": ("RAdam", BESIDE),
    "adafactor": ("Adafactor", ("weight_decay",)),  # its eps are two
    "adagrad": ("Adagrad", ("eps", "weight_decay")),
    "adadelta": ("Adadelta", ("eps", "weight_decay")),
    "rmsprop": ("RMSprop", ("eps", "weight_decay")),
    "sgd": ("SGD", ("weight_decay",)),
}
HOW = {"params", "lr", "eps", "foreach", "fused", "capturable", "differentiable", "maximize"}
SLICED = {  # strategy -> the optimisers tried with it; the others look at whole weights
    "fsdp2": tuple(name for name in OPTIMIZERS if name != "adafactor"),
    "zero2": ("adamw",),
    "zero3": ("adamw",),
}
DEEPSPEED = ("zero2", "zero3")


def engine_values(spec: OptimSpec) -> dict[str, Any]:
    """The block as the engine takes it: a class of torch.optim and what it is given."""
    kind, _ = OPTIMIZERS[spec.optimizer.name]
    values = spec.model_dump(exclude={"optimizer"})
    return {**values, "kind": kind, "options": spec.optimizer.with_}


def optimizer_faults(spec: OptimSpec, strategy: str) -> Iterator[Fault]:
    """An option that the optimiser does not take, or a strategy that it was not tried under."""
    name, given = spec.optimizer.name, spec.optimizer.with_
    kind, keys = OPTIMIZERS[name]
    for key in BESIDE:
        if getattr(spec, key) is not None and key not in keys:
            yield Fault((key,), f"{name} takes none; remove it", at_key=True)
    known = _known(kind, keys) if given else []
    wrong = [key for key in given if key not in known]
    for key in wrong:
        near = "; it stands in `train`" if key in ("lr", *keys) else suggest(key, known)
        what = f"unknown option{near} ({name} takes: {', '.join(known) or 'none'})"
        yield Fault(("optimizer", "with", key), what, at_key=True)
    if not wrong and not is_usual(spec) and (what := refused(spec)):
        yield Fault(("optimizer",), what)
    if name not in SLICED.get(strategy, (name,)):
        yield Fault(("optimizer",), f"{name} is not tried under {strategy}; take adamw, or ddp")
    elif given and strategy in DEEPSPEED:
        what = f"options are not tried under {strategy}; remove them, or take fsdp2"
        yield Fault(("optimizer", "with"), what, at_key=True)


def is_usual(spec: OptimSpec) -> bool:
    """Whether the ranges of the keys leave nothing for torch to refuse, which is not loaded."""
    return not spec.optimizer.with_ and all(0 <= beta < 1 for beta in spec.betas or ())


def _known(kind: str, keys: Collection[str]) -> list[str]:
    """The options of a class of torch.optim."""
    return [n for n in inspect.signature(_class(kind)).parameters if n not in {*HOW, *keys}]


def _class(kind: str) -> type[torch.optim.Optimizer]:
    found: type[torch.optim.Optimizer] = getattr(torch.optim, kind)
    return found


def _options(spec: OptimSpec) -> dict[str, Any]:
    """What the class is given beside the rate: what stands nowhere is torch's own default."""
    beside = {key: value for key in BESIDE if (value := getattr(spec, key)) is not None}
    return {**beside, **spec.optimizer.with_}


def refused(spec: OptimSpec) -> str:
    """What torch says of the options, tried on a weight of its own."""
    kind, keys = OPTIMIZERS[spec.optimizer.name]
    options = {k: v for k, v in _options(spec).items() if k in keys or k not in BESIDE}
    try:
        _class(kind)([torch.nn.Parameter(torch.zeros(1, 1))], lr=spec.lr, **options)  # type: ignore[call-arg]
    except (ValueError, TypeError) as error:
        return f"{spec.optimizer.name} refuses its options: {error}"
    return ""
