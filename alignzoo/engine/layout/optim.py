"""The optimiser and clipping: one AdamW with a group per role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: float = 0.1
    schedule: str = "cosine"
    min_lr: float = 0.1
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool = False
    scorer: str = "chunked"
    chunk_mb: int = 256
    save_every: int | None = None
    shuffle: bool = True
    aux_loss: bool = False


def build_optimizer(optim: Optim, trainable: Mapping[str, nn.Module]) -> torch.optim.AdamW:
    """AdamW with one parameter group per trainable role, `role` and `peak` noted in the group."""
    groups = [
        {
            "params": [p for p in model.parameters() if p.requires_grad],
            "role": role,
            "peak": optim.lr_by_role.get(role, optim.lr),
        }
        for role, model in trainable.items()
    ]
    return torch.optim.AdamW(
        groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay
    )


def clip_by_role(optimizer: torch.optim.Optimizer, max_norm: float) -> dict[str, Tensor]:
    """Clip the gradient norm of each role; {role: norm before clipping}."""
    return {
        group["role"]: torch.nn.utils.clip_grad_norm_(group["params"], max_norm)
        for group in optimizer.param_groups
    }
