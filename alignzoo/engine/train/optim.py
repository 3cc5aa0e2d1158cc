"""The learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from alignzoo.engine.layout.optim import Optim

SHAPES: Mapping[str, Callable[[float, float], float]] = {
    "constant": lambda x, low: 1.0,
    "linear": lambda x, low: 1 - (1 - low) * x,
    "cosine": lambda x, low: low + (1 - low) * 0.5 * (1 + math.cos(math.pi * x)),
}


def rate(optim: Optim, step: int, total: int) -> float:
    """Share of the peak rate at a step (0-based) of `total`.

    Rises linearly over w = ceil(warmup * total) steps, reaching 1 at step w - 1; then falls to
    `min_lr` along the schedule, reaching it after the last step.
    """
    warm = math.ceil(optim.warmup * total)
    if step < warm:
        return (step + 1) / warm
    return SHAPES[optim.schedule]((step - warm) / max(1, total - warm), optim.min_lr)


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set every group's rate to its share of the peak."""
    for group in optimizer.param_groups:
        group["lr"] = share * group["peak"]
