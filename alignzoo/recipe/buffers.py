"""What a method asks of the rollout buffers that it learns from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.types import LabelledBatch, PairBatch, RolloutBatch
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.faults import Fault


def buffer_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """A batch that no rollout builds, or answers that would be used more often than they may."""
    yield from _batch_faults(spec, cls)
    yield from _reuse_faults(spec, cls)


def _batch_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """A rollout builds RolloutBatch; a method with a batch class of its own would get another."""
    given = issubclass(cls.batch, PairBatch | LabelledBatch)  # has a sentence of its own
    if spec.rollout is None or given or issubclass(RolloutBatch, cls.batch):
        return
    what = (
        f"{cls.name} declares the batch {cls.batch.__name__}, which a rollout cannot build: it "
        "builds RolloutBatch; declare that or TextBatch, or train on given data"
    )
    yield Fault(("rollout",), what, at_key=True)


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
