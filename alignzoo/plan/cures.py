"""What would make a train stage fit into a device, each with its predicted memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignzoo.engine.memory.sampling import SAMPLING
from alignzoo.plan.memory import Predictor
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.spec import AdapterSpec, LoraSpec
from alignzoo.recipe.training import peft_version

FEW_ROWS = 16  # sampled side by side
RANK = 16  # of the adapter that is tried


@dataclass(frozen=True)
class Cure:
    """Other settings of a stage."""

    settings: str  # as a recipe writes them
    total: float  # bytes at the peak


def cures(predictor: Predictor, spec: TrainSpec, strategy: str) -> list[Cure]:
    """Single settings, then all of them together where none alone is enough.

    None changes a loss, but LoRA, which trains another model.
    """
    now = predictor.footprint(spec).peaks
    found = [
        Cure(f"parallel.strategy: {other}", peak.total)
        for other, peak in now.items()
        if other != strategy
    ]
    changes, whole = list(_changes(predictor, spec, strategy)), spec
    for words, values in changes:
        peaks = predictor.footprint(_with(spec, values)).peaks
        found.append(Cure(words, peaks[strategy].total))
        whole = _with(whole, values)
    if any(predictor.devices.holds(cure.total) for cure in found) or not changes:
        return found
    words = " and ".join(words for words, _ in changes)
    for other, peak in predictor.footprint(whole).peaks.items():
        also = "" if other == strategy else f" and parallel.strategy: {other}"
        found.append(Cure(words + also, peak.total))
    return found


def _changes(
    predictor: Predictor, spec: TrainSpec, strategy: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(as a recipe writes it, block -> its new values)."""
    moment = predictor.footprint(spec).peaks[strategy].moment
    if spec.rollout is not None and moment == SAMPLING:
        yield f"rollout.batch_size: {FEW_ROWS}", {"rollout": {"batch_size": FEW_ROWS}}
    if not spec.train.gradient_checkpointing:
        yield "train.gradient_checkpointing: true", {"train": {"gradient_checkpointing": True}}
    if spec.train.micro_batch_size > 1:
        yield "train.micro_batch_size: 1", {"train": {"micro_batch_size": 1}}
    if spec.adapter is None and peft_version() is not None and not strategy.startswith("zero"):
        yield f"adapter: {{lora: {{r: {RANK}}}}}", {"adapter": AdapterSpec(lora=LoraSpec(r=RANK))}


def _with(spec: TrainSpec, values: Mapping[str, Any]) -> TrainSpec:
    """Other settings: of a block, or a block of its own."""
    changed = {
        block: getattr(spec, block).model_copy(update=value) if isinstance(value, dict) else value
        for block, value in values.items()
    }
    return spec.model_copy(update=changed)
