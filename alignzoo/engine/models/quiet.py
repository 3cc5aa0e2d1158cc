"""One function from a model: no randomness while it trains, and no outputs that nobody reads.

What is switched off stays in the model's own config when it is saved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from transformers import PreTrainedConfig, PreTrainedModel

# A rate of these becomes 0. Jitter of routers does not: PhiMoE reads it outside training too. That
# ends because a model which learns is not in training mode either, see `ScoringModule.set_modes`.
RATES = re.compile(r"drop(out|_?path|_?rate|_?prob)|pdrop|layer_?drop", re.IGNORECASE)
NOISE = re.compile(rf"{RATES.pattern}|jitter|noise", re.IGNORECASE)
OUTPUTS = ("output_router_logits",)  # `generate` fails over it; `train.aux_loss` asks for it itself


@dataclass(frozen=True)
class Setting:
    """A value of a model's own that is not in force."""

    owner: Any  # a config
    name: str
    value: Any


def silence(model: PreTrainedModel) -> None:
    """Switch randomness and extra outputs off in every nested config and every module.

    The configs' own values are kept beside the model: `own_config` puts them back for saving, and
    `switched_off` tells them.
    """
    kept = getattr(model, "own_settings", ())
    found = [
        Setting(config, name, value)
        for config in _configs_of(model)
        for name, value in vars(config).items()
        if _is_rate(name, value) or (name in OUTPUTS and value is True)
    ]
    for setting in found:
        setattr(setting.owner, setting.name, type(setting.value)(0))
    for module in model.modules():
        for name, value in vars(module).items():
            if _is_rate(name, value) or (name == "p" and _is_dropout(module)):
                setattr(module, name, 0.0)
    cast(Any, model).own_settings = (*kept, *found)


def switched_off(model: PreTrainedModel) -> dict[str, float]:
    """Each kind of randomness that the model would have in plain training, with its rate."""
    off = {s.name: s.value for s in getattr(model, "own_settings", ()) if s.name not in OUTPUTS}
    for config in _configs_of(model):
        off |= {n: x for n, x in vars(config).items() if NOISE.search(n) and _is_positive(x)}
    return dict(sorted(off.items()))


@contextmanager
def own_config(model: PreTrainedModel) -> Iterator[None]:
    """The model's configs as they were before `silence`."""
    settings = getattr(model, "own_settings", ())
    for s in settings:
        setattr(s.owner, s.name, s.value)
    try:
        yield
    finally:
        for s in settings:
            setattr(s.owner, s.name, type(s.value)(0))


def _configs_of(model: PreTrainedModel) -> list[Any]:
    """The config of a model and of every part, with all that are nested in them, each once."""
    own = [module.config for module in model.modules() if hasattr(module, "config")]
    every = {id(inner): inner for config in own for inner in _configs(config)}
    return list(every.values())


def _configs(config: Any) -> Iterator[Any]:
    yield config
    for inner in vars(config).values():
        if isinstance(inner, PreTrainedConfig):
            yield from _configs(inner)


def _is_rate(name: str, value: Any) -> bool:
    return RATES.search(name) is not None and _is_positive(value)


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_dropout(module: Any) -> bool:
    return "drop" in type(module).__name__.lower()
