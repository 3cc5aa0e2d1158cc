"""What a method asks of the rollout buffers that it learns from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.choosing import CHOOSERS, items_of
from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.types import Batch, PairBatch, RolloutBatch
from alignzoo.recipe.blocks import RolloutSpec, TrainSpec
from alignzoo.recipe.faults import Fault

USUAL_CHOICE = "best_worst"


def items_per_prompt(rollout: RolloutSpec, kind: type[Batch]) -> int:
    """How many items of a kind of batch the answers to one prompt make."""
    chooser = CHOOSERS[rollout.choose or USUAL_CHOICE]
    return items_of(kind, rollout.samples_per_prompt, chooser)


def buffer_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """A batch that no rollout builds, or answers that would be used more often than they may."""
    if issubclass(cls.batch, RolloutBatch | GroupBatch) and spec.rollout is None:
        yield Fault(("algorithm",), f"{cls.name} trains on its own samples; add `rollout:`")
    if spec.rollout is not None:
        yield from _batch_faults(spec.rollout, cls)
        yield from _pair_faults(spec.rollout, cls)
        yield from _share_faults(spec.rollout, cls)
        yield from _size_faults(spec.rollout, spec.train.batch_size, cls)


def _batch_faults(rollout: RolloutSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """What is made of an answer is one row, a pair or a group."""
    if rollout.samples_per_prompt < cls.least_samples:
        what = f"{cls.name} compares the answers to one prompt; make it {cls.least_samples} or more"
        yield Fault(("rollout", "samples_per_prompt"), what)
    if cls.batch.rows_per_item > 1 and not issubclass(cls.batch, PairBatch | GroupBatch):
        what = (
            f"{cls.name} declares the batch {cls.batch.__name__}, which a rollout cannot build; "
            "train on given data"
        )
        yield Fault(("rollout",), what, at_key=True)


def _pair_faults(rollout: RolloutSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """Pairs are chosen among several answers by what they earn."""
    if not issubclass(cls.batch, PairBatch):
        if rollout.choose is not None:
            what = f"has no effect: {cls.name} does not learn from pairs; take it out"
            yield Fault(("rollout", "choose"), what, at_key=True)
        return
    why = f"{cls.name} learns from pairs, which are chosen among the answers to a prompt"
    if rollout.samples_per_prompt < 2:
        yield Fault(("rollout", "samples_per_prompt"), f"{why}; make it 2 or more")
    if rollout.reward is None:
        yield Fault(("rollout",), f"{why} by what they earn; add `reward:`")


def _share_faults(rollout: RolloutSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """A prompt that keeps its answer of the data makes one item, and so must a sampled one."""
    if rollout.share == 1:
        return
    if issubclass(cls.batch, RolloutBatch | GroupBatch):
        what = f"{cls.name} learns from its own samples alone; take it out"
        yield Fault(("rollout", "share"), what, at_key=True)
    elif items_per_prompt(rollout, cls.batch) > 1:
        what = "the data has one item for a prompt, so a sampled prompt must make one too: "
        what += "samples_per_prompt: 1, or a pair by best_worst"
        yield Fault(("rollout", "share"), what, at_key=True)


def _size_faults(
    rollout: RolloutSpec, batch_size: int, cls: type[Algorithm[Any]]
) -> Iterator[Fault]:
    """Batches of a buffer are whole, and without an importance ratio a second one is wrong."""
    each = items_per_prompt(rollout, cls.batch)
    buffer = rollout.prompts * each
    if buffer > batch_size and buffer % batch_size:
        unit = _unit(cls.batch)
        yield Fault(
            ("rollout",),
            f"a buffer of prompts x {unit[0]} = {buffer} {unit[1]} cannot be cut into "
            f"batches of train.batch_size = {batch_size}; make it a multiple",
        )
    if not cls.single_update:
        return
    why = f"{cls.name} has no importance ratio, so answers serve one update"
    if rollout.epochs > 1:
        yield Fault(("rollout", "epochs"), f"{why}; make it 1")
    if buffer > batch_size:
        what = f"{why}; sample {batch_size} (train.batch_size), not {buffer}"
        yield Fault(("rollout",), what)


def _unit(kind: type[Batch]) -> tuple[str, str]:
    """What a prompt's answers are counted by, and what they become."""
    if issubclass(kind, PairBatch):
        return "pairs of each", "pairs"
    return ("1", "groups") if issubclass(kind, GroupBatch) else ("samples_per_prompt", "sequences")
