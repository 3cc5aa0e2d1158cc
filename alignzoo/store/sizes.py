"""How many items a training stage has, where that is known without a model or a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import RolloutBatch
from alignzoo.data.conversions import convert
from alignzoo.data.mixture import times
from alignzoo.data.samples import load_samples
from alignzoo.recipe.blocks import DataSpec, TrainSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.store.inputs import data_source

LARGEST = 256 * 2**20  # bytes of a file that a plan reads


def known_items(spec: TrainSpec, registry: Registry, outputs: Mapping[str, Path]) -> int | None:
    """Items (pairs, answers, prompts) before any is left out for its length; None: not known.

    A file and a finished stage are read; a plug-in's dataset is asked, if it has a `len`.
    """
    found = [_items(part, spec, registry, outputs) for part in spec.data.sources]
    if None in found:
        return None
    weighed = zip(found, spec.data.sources, strict=True)
    return sum(times(n or 0, part.weight) for n, part in weighed)


def _items(
    data: DataSpec, spec: TrainSpec, registry: Registry, outputs: Mapping[str, Path]
) -> int | None:
    """Items of one source."""
    if data.name not in outputs and data.name in registry.datasets:
        return _made(data, registry)
    try:
        source = data_source(data, outputs)
        file = Path(source.name)
        if not file.is_file() or file.stat().st_size > LARGEST:
            return None
        on_policy = spec.rollout is not None and spec.rollout.share == 1
        kind = RolloutBatch if on_policy else registry.algorithms[spec.algorithm].batch
        return sum(len(convert(sample, kind)) for sample in load_samples(source).samples)
    except (DataError, OSError):
        return None  # the run says what is wrong, with the place


def _made(data: DataSpec, registry: Registry) -> int | None:
    dataset = build_options(registry.find("dataset", data.name), data.with_)
    if not hasattr(dataset, "__len__"):
        return None
    left = max(0, len(dataset) - data.skip)
    return left if data.limit is None else min(left, data.limit)
