"""The optimiser and clipping: one of torch.optim with a group per role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from alignzoo.engine.scoring.fused import budget_on


@dataclass(frozen=True)
class Optim:
    """The `train:` block; its meaning is documented in `alignzoo.recipe.spec.OptimSpec`."""

    epochs: int = 1
    steps: int | None = None
    batch_size: int = 64
    micro_batch_size: int = 16
    lr: float = 1e-6
    lr_by_role: Mapping[str, float] = field(default_factory=dict)
    kind: str = "AdamW"  # a class of torch.optim
    options: Mapping[str, Any] = field(default_factory=dict)  # those of that class alone
    betas: tuple[float, float] | None = (0.9, 0.95)  # None: the class's own, or it has none
    eps: float | None = 1e-8
    weight_decay: float | None = 0.0
    warmup: float = 0.1
    schedule: str = "cosine"
    min_lr: float = 0.1
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool = False
    scorer: str = "fused"
    chunk_mb: int | None = None
    save_every: int | None = None
    shuffle: bool = True
    aux_loss: bool = False
    cache_teacher: bool = False

    def chunk(self, device: str, memory: float | None = None) -> int:
        """Bytes for the logits of one chunk, on a device of so much memory."""
        return budget_on(device, memory) if self.chunk_mb is None else self.chunk_mb * 2**20


FUSED = ("AdamW", "Adam", "SGD")  # that torch updates in one pass over memory, on a GPU


def build_optimizer(optim: Optim, trainable: Mapping[str, nn.Module]) -> torch.optim.Optimizer:
    """One parameter group per trainable role, `role` and `peak` noted in the group.

    On a GPU in one kernel where there is one: the others make new tensors as large as the weights.
    """
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in model.parameters() if p.requires_grad],
            "role": role,
            "peak": optim.lr_by_role.get(role, optim.lr),
        }
        for role, model in trainable.items()
    ]
    kind: type[torch.optim.Optimizer] = getattr(torch.optim, optim.kind)
    usual = {"betas": optim.betas, "eps": optim.eps, "weight_decay": optim.weight_decay}
    given: dict[str, Any] = {key: value for key, value in usual.items() if value is not None}
    if optim.kind in FUSED and all(p.is_cuda for group in groups for p in group["params"]):
        given["fused"] = True
    return kind(groups, lr=optim.lr, **given, **optim.options)  # type: ignore[call-arg]


def is_count(x: Tensor, parameter: Tensor, key: str) -> bool:
    """Whether a moment is no value of each weight: an optimiser counts its steps."""
    return key == "step" or (x.ndim == 0 and parameter.ndim > 0)


def count(x: Tensor, parameter: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """A copy of a count where an optimiser wants it: on the CPU, or beside its parameters."""
    return x.to(parameter.device if optimizer.defaults.get("fused") else "cpu", copy=True)


def clip_by_role(optimizer: torch.optim.Optimizer, max_norm: float) -> dict[str, Tensor]:
    """Clip the gradient norm of each role; {role: norm before clipping}."""
    return {
        group["role"]: torch.nn.utils.clip_grad_norm_(group["params"], max_norm)
        for group in optimizer.param_groups
    }
