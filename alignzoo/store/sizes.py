"""What files say of a training stage without a model: how many items, and whether of its kind."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import (
    Batch,
    LabelledSample,
    PairSample,
    RolloutBatch,
    Sample,
    TextSample,
)
from alignzoo.data.conversions import convert
from alignzoo.data.mixture import times
from alignzoo.data.samples import Loaded, check_bad, load_samples
from alignzoo.recipe.blocks import DataSpec, Recipe, TrainSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.store.inputs import data_of, data_source

LARGEST = 256 * 2**20  # bytes of a file that a plan reads
FIRST = 20  # rows whose kind is looked at before anything is trained


def known_items(spec: TrainSpec, registry: Registry, outputs: Mapping[str, Path]) -> int | None:
    """Items (pairs, answers, prompts) before any is left out for its length; None: not known.

    A file and a finished stage are read; a plug-in's dataset is asked, if it has a `len`.
    """
    found = [_items(part, spec, registry, outputs) for part in spec.data.sources]
    if None in found:
        return None
    weighed = zip(found, spec.data.sources, strict=True)
    return sum(times(n or 0, part.weight) for n, part in weighed)


def most_states(spec: TrainSpec, registry: Registry, outputs: Mapping[str, Path]) -> int | None:
    """Positions of answers in given data, held-out data among them, at most: a token of text is a
    byte or more, and an answer has one before it and one that ends it. None: not known.
    """
    every = 0
    parts = [*spec.data.sources, *([spec.validation.data] if spec.validation else [])]
    for part in parts:
        found = _converted(part, spec, registry, outputs)
        if found is None:
            return None
        most = part.max_length or sys.maxsize
        every += sum(min(len(text.encode()) + 2, most) for x in found for text in _answers(x))
    return every


def _answers(sample: Sample) -> list[str]:
    match sample:
        case TextSample():
            return [sample.response.text]
        case PairSample():
            return [sample.chosen.text, sample.rejected.text]
        case LabelledSample():  # once more behind the prompt of another
            return [sample.response.text] * 2
    return []


def _items(
    data: DataSpec, spec: TrainSpec, registry: Registry, outputs: Mapping[str, Path]
) -> int | None:
    """Items of one source."""
    if data.name not in outputs and data.name in registry.datasets:
        return _made(data, registry)
    found = _converted(data, spec, registry, outputs)
    return None if found is None else len(found)


def _converted(
    data: DataSpec, spec: TrainSpec, registry: Registry, outputs: Mapping[str, Path]
) -> list[Sample] | None:
    """The samples of a small file, as the method takes them; None for anything else."""
    if data.name not in outputs and data.name in registry.datasets:
        return None
    try:
        source = data_source(data, outputs)
        file = Path(source.name)
        if not file.is_file() or file.stat().st_size > LARGEST:
            return None
        kind = _kind(spec, registry)
        return [x for sample in load_samples(source).samples for x in convert(sample, kind)]
    except (DataError, OSError):
        return None  # the run says what is wrong, with the place


def check_kinds(recipe: Recipe, registry: Registry) -> None:
    """Look at the first rows of every file that a train stage reads, at all where some may be bad.

    Raises DataError, as the stage would, for rows that lack what the method needs, such as pairs:
    for more than `max_bad` of them, or all.
    """
    stages = {stage.name for stage in recipe.stages}
    for spec in (stage for stage in recipe.stages if isinstance(stage, TrainSpec)):
        held_out = registry.find("algorithm", spec.algorithm).batch
        for place, data in data_of(spec).items():
            if data.name in stages or data.name in registry.datasets:
                continue
            kind = held_out if place == "validation" else _kind(spec, registry)
            if loaded := _looked_at(data):
                _check_kind(data, loaded, kind)


def _check_kind(data: DataSpec, loaded: Loaded, kind: type[Batch]) -> None:
    wrong = []
    for sample, at in zip(loaded.samples, loaded.places, strict=True):
        try:
            convert(sample, kind, at)
        except DataError as error:
            wrong.append(str(error))
    if wrong and (not data.max_bad or len(wrong) == len(loaded.samples)):
        raise DataError(wrong[0])
    if wrong:
        check_bad(data.name, (*loaded.bad, *wrong), loaded.read, data.max_bad)


def _kind(spec: TrainSpec, registry: Registry) -> type[Batch]:
    """What the data is read as: prompts alone where the policy answers all of them."""
    on_policy = spec.rollout is not None and spec.rollout.share == 1
    return RolloutBatch if on_policy else registry.find("algorithm", spec.algorithm).batch


def _looked_at(data: DataSpec) -> Loaded | None:
    """None for what is no small file, or cannot be read, which the run says with the place."""
    some = data.limit if data.max_bad else min(FIRST, data.limit or FIRST)
    source = replace(data_source(data, {}), limit=some, swap=False, max_bad=1.0)
    file = Path(source.name)
    try:
        return load_samples(source) if file.is_file() and file.stat().st_size <= LARGEST else None
    except (DataError, OSError):
        return None


def _made(data: DataSpec, registry: Registry) -> int | None:
    dataset = build_options(registry.find("dataset", data.name), data.with_)
    if not hasattr(dataset, "__len__"):
        return None
    left = max(0, len(dataset) - data.skip)
    return left if data.limit is None else min(left, data.limit)
