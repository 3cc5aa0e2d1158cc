"""Adapters that stages left beside their merged models, and what each lies over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alignzoo.store.files import read_json
from alignzoo.store.records import RECORD, check_output, recorded_output

ADAPTER = "adapter"  # its folder beside `model`


@dataclass(frozen=True)
class Left:
    """A finished stage's adapter."""

    folder: Path
    base: str  # digest of the model that it lies over


def adapter_beside(model: Path) -> Left | None:
    """The adapter that a stage left beside a model's folder.

    Raises DataError when its files are not what the stage wrote.
    """
    stage = model.parent
    base = read_json(stage / RECORD).get("manifest", {}).get("models", {}).get("policy")
    if model.name != "model" or base is None or recorded_output(stage, ADAPTER) is None:
        return None
    check_output(stage, ADAPTER)
    return Left(stage / ADAPTER, str(base))
