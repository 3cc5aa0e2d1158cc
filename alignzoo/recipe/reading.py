"""What a plug-in's stage declares that it reads, against what a recipe gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alignzoo.contract.errors import suggest
from alignzoo.contract.stage import Stage
from alignzoo.contract.types import GroupSample, PairSample
from alignzoo.recipe.blocks import PluginStageSpec
from alignzoo.recipe.faults import Fault

MADE: Mapping[str, type] = {"generate": GroupSample, "label": PairSample}  # by a stage's kind


def reading_faults(spec: PluginStageSpec, cls: type[Stage], kind: str | None) -> Iterator[Fault]:
    """Models and data that are missing, or that the stage does not read."""
    declared = cls.reads_models
    for part in spec.models if declared is not None else ():
        if part not in (known := list(declared or ())):
            takes = f"reads: {', '.join(known)}" if known else "reads no models"
            what = f"unknown model{suggest(part, known)} ({cls.name} {takes})"
            yield Fault(("models", part), what, at_key=True)
    for part in declared or ():
        if part not in spec.models:
            what = f"{cls.name} reads the model '{part}'; add models: {{{part}: <stage>}}"
            yield Fault(("models",), what, at_key=True)
    yield from _data_faults(spec, cls, MADE.get(str(kind)))


def _data_faults(spec: PluginStageSpec, cls: type[Stage], made: type | None) -> Iterator[Fault]:
    kinds = cls.reads_data
    if kinds is None:
        return
    if spec.data is not None and not kinds:
        yield Fault(("data",), f"{cls.name} reads no data; remove this", at_key=True)
    elif spec.data is None and kinds:
        yield Fault(("data",), f"is missing: {cls.name} reads {names(kinds)}", at_key=True)
    elif made is not None and not issubclass(made, kinds):
        what = f"that stage makes {made.__name__}, but {cls.name} reads {names(kinds)}"
        yield Fault(("data", "name"), what)


def names(kinds: tuple[type[Any], ...]) -> str:
    """Kinds of samples in words."""
    return " or ".join(kind.__name__ for kind in kinds)


def declared(cls: type[Stage]) -> dict[str, Any] | None:
    """What a stage declares, as JSON; None where it declares nothing."""
    if cls.reads_models is None and cls.reads_data is None:
        return None
    models = None if cls.reads_models is None else sorted(cls.reads_models)
    kinds = None if cls.reads_data is None else [kind.__name__ for kind in cls.reads_data]
    return {"models": models, "data": kinds}
