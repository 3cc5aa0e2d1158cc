"""The optimiser and clipping: one of torch.optim with a group per role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


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
    chunk_mb: int = 256
    save_every: int | None = None
    shuffle: bool = True
    aux_loss: bool = False


def build_optimizer(optim: Optim, trainable: Mapping[str, nn.Module]) -> torch.optim.Optimizer:
    """One parameter group per trainable role, `role` and `peak` noted in the group."""
    groups = [
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
    return kind(groups, lr=optim.lr, **given, **optim.options)  # type: ignore[call-arg]


def stays(x: Tensor, parameter: Tensor, key: str) -> bool:
    """Whether a moment is no value of each weight: the optimiser counts on the CPU."""
    return key == "step" or (x.ndim == 0 and parameter.ndim > 0)


def clip_by_role(optimizer: torch.optim.Optimizer, max_norm: float) -> dict[str, Tensor]:
    """Clip the gradient norm of each role; {role: norm before clipping}."""
    return {
        group["role"]: torch.nn.utils.clip_grad_norm_(group["params"], max_norm)
        for group in optimizer.param_groups
    }
