"""Weights that are rounded once for many steps in mixed precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

LINEAR = (nn.Linear, Conv1D)


@contextmanager
def rounded(model: PreTrainedModel) -> Iterator[None]:
    """Linear layers as autocast computes them, with weights that it need not round at every step.

    It keeps none of a frozen layer, and since torch 2.11 none at all in inference mode. The head
    computes in float32 and keeps its weights. Outside autocast nothing changes.
    """
    kind = model.device.type
    if not torch.is_autocast_enabled(kind):
        yield
        return
    dtype, head = torch.get_autocast_dtype(kind), model.get_output_embeddings()
    layers = [m for m in model.modules() if type(m) in LINEAR and m is not head]
    own = [(layer, dict(layer._parameters)) for layer in layers]
    try:
        for layer, weights in own:
            for name, x in weights.items():
                if x is not None and x.dtype == torch.float32:
                    layer._parameters[name] = nn.Parameter(x.detach().to(dtype), False)
        yield
    finally:
        for layer, weights in own:
            layer._parameters.update(weights)
