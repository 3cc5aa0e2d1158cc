"""What would make a train stage fit into a device, each with its predicted memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignzoo.engine.memory.sampling import SAMPLING
from alignzoo.engine.memory.spread import LORA, RANK
from alignzoo.plan.memory import Footprint, Predictor
from alignzoo.recipe.blocks import TrainSpec

FEW_ROWS = 16  # sampled side by side


@dataclass(frozen=True)
class Cure:
    """Other settings of a stage."""

    settings: str  # as a recipe writes them
    total: float  # bytes at the peak


def cures(predictor: Predictor, spec: TrainSpec, strategy: str) -> list[Cure]:
    """Single settings, then all of them together where none alone is enough.

    None changes a loss, but LoRA, which trains another model.
    """
    now = predictor.footprint(spec)
    found = [
        Cure(f"parallel.strategy: {other}", peak.total)
        for other, peak in now.by_strategy.items()
        if other != strategy
    ]
    changes, whole = list(_changes(spec, now, strategy)), spec
    for words, block, values in changes:
        peaks = predictor.footprint(_with(spec, block, values)).peaks
        found.append(Cure(words, peaks[strategy].total))
        whole = _with(whole, block, values)
    adapted = [now.peaks[key] for key in (strategy + LORA,) if key in now.peaks]
    lora = [Cure(f"LoRA of rank {RANK}, about", peak.total) for peak in adapted]
    if any(map(predictor.devices.holds, (cure.total for cure in found))) or not changes:
        return [*found, *lora]
    words = " and ".join(words for words, _, _ in changes)
    for name, peak in predictor.footprint(whole).peaks.items():
        kind, _, with_lora = name.partition(LORA[:3])
        also = ["", f" and parallel.strategy: {kind}"][kind != strategy]
        found.append(Cure(f"{words}{also}{' and LoRA' if with_lora else ''}", peak.total))
    return [*found, *lora]


def _changes(
    spec: TrainSpec, now: Footprint, strategy: str
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(as a recipe writes it, block, values)."""
    if spec.rollout is not None and now.peaks[strategy].moment == SAMPLING:
        yield f"rollout.batch_size: {FEW_ROWS}", "rollout", {"batch_size": FEW_ROWS}
    if not spec.train.gradient_checkpointing:
        yield "train.gradient_checkpointing: true", "train", {"gradient_checkpointing": True}
    if spec.train.micro_batch_size > 1:
        yield "train.micro_batch_size: 1", "train", {"micro_batch_size": 1}


def _with(spec: TrainSpec, block: str, values: Mapping[str, Any]) -> TrainSpec:
    changed = getattr(spec, block).model_copy(update=values)
    return spec.model_copy(update={block: changed})
