"""Where a stage may read several sources, and what they must have in common."""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.recipe.blocks import DataSpec, StageSpec, TrainSpec
from alignzoo.recipe.faults import Fault, Path

READ_ALIKE = ("special", "template_cuts", "max_length", "max_prompt_length", "too_long")


def placed(data: DataSpec, path: Path) -> list[tuple[DataSpec, Path]]:
    """The sources of a block of data, each with its place."""
    if data.parts is None:
        return [(data, path)]
    return [(part, (*path, number)) for number, part in enumerate(data.parts)]


def mixture_faults(spec: StageSpec) -> Iterator[Fault]:
    """A mixture where none is read, a weight of nothing, or prompts that are read unlike."""
    trains = isinstance(spec, TrainSpec)
    for data, path in _blocks(spec):
        mixes = trains and path == ("data",)
        if data.parts and not mixes:
            yield Fault(path, "a list is for the data of a train stage; name one source")
        if not data.parts and data.weight != 1:
            yield Fault((*path, "weight"), "counts in a list of data alone; remove it", at_key=True)
        for key in READ_ALIKE if getattr(spec, "rollout", None) else ():
            if len({getattr(part, key) for part in data.sources}) > 1:
                yield Fault(path, f"prompts of one stage are read alike; give all one {key}")


def _blocks(spec: StageSpec) -> Iterator[tuple[DataSpec, Path]]:
    """The blocks of data of a stage, each with its place."""
    data, held = getattr(spec, "data", None), getattr(spec, "validation", None)
    if data is not None:
        yield data, ("data",)
    if held is not None:
        yield held.data, ("validation", "data")
