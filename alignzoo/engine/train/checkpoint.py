"""What a stage needs to go on after an interruption: weights, optimiser, cursor, state.

Safetensors and JSON only. Data order and sampling noise are functions of (seed, step), so there is
no random state to keep: a resumed run equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Cursor:
    """Where training stands."""

    buffer: int = 0  # next buffer
    step: int = 0  # optimiser steps done
    best: float | None = None  # best validation metric so far
    best_step: int = 0


def save_checkpoint(
    folder: Path,
    models: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Tensor],
    cursor: Cursor,
) -> None:
    """Write `folder/step-N` and then drop older ones; a crash leaves the older one intact."""
    target = folder / f"step-{cursor.step:08d}"
    part = folder / "part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for role, model in models.items():
        save_own_tensors(model, part / f"{role}.safetensors")
    save_file(_optimizer_tensors(optimizer), part / "optimizer.safetensors")
    save_file({k: x.contiguous() for k, x in state.items()}, part / "state.safetensors")
    (part / "cursor.json").write_text(json.dumps(asdict(cursor)))
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for old in sorted(folder.glob("step-*"))[:-1]:
        shutil.rmtree(old)


def load_checkpoint(
    folder: Path, models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], Cursor] | None:
    """Restore the newest checkpoint into models and optimiser; None when there is none."""
    found = sorted(folder.glob("step-*"))
    if not found:
        return None
    newest = found[-1]
    for role, model in models.items():
        load_own_tensors(model, newest / f"{role}.safetensors")
    _restore_optimizer(optimizer, load_file(newest / "optimizer.safetensors"))
    state = load_file(newest / "state.safetensors")
    return state, Cursor(**json.loads((newest / "cursor.json").read_text()))


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters by name, tied ones once."""
    return {
        n: p.detach().contiguous().cpu() for n, p in model.named_parameters() if p.requires_grad
    }


def save_own_tensors(model: nn.Module, file: Path) -> None:
    """Write the trainable parameters."""
    save_file(own_tensors(model), file)


def load_own_tensors(model: nn.Module, file: Path) -> None:
    """Copy saved parameters back in place."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, x in load_file(file).items():
            parameters[name].copy_(x)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    entries = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": torch.as_tensor(x).contiguous().cpu()
        for index, entry in entries.items()
        for key, x in entry.items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    entries: dict[int, dict[str, Any]] = {}
    for name, x in tensors.items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = x
    full = optimizer.state_dict()
    full["state"] = entries
    optimizer.load_state_dict(full)
