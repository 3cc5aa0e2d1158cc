"""Plain models out of sharded ones: the structure is kept without weights, and filled later."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def outline(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose parameters take no memory; buffers, tied parameters and config are its own."""
    empty = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, empty)


def size_of(kept: PreTrainedModel) -> int:
    """Bytes that the parameters of an outline stand for."""
    return sum(p.numel() * p.element_size() for p in kept.parameters())


def filled(
    kept: PreTrainedModel, weights: Iterable[tuple[str, Tensor]], device: torch.device
) -> PreTrainedModel:
    """A model like the outline with copies of the weights of every parameter."""
    own = dict(kept.named_parameters())
    found = {
        id(own[name]): nn.Parameter(x.detach().to(device, copy=True), own[name].requires_grad)
        for name, x in weights
    }
    model: PreTrainedModel = copy.deepcopy(kept, found)
    model.to(device)  # type: ignore[arg-type]  # its buffers
    return model
