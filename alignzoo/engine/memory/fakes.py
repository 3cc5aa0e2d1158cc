"""Models that have shapes and no data: of any size, in no memory."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import PreTrainedConfig, PreTrainedModel

from alignzoo.contract.algorithm import Role
from alignzoo.contract.stage import ModelRef
from alignzoo.engine.models.families import class_for, freeze_other_parts, set_attention
from alignzoo.engine.models.quiet import silence


def fake_mode() -> FakeTensorMode:
    """Where tensors without data come from; those of one walk must come from the same."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def fake_model(
    config: PreTrainedConfig, role: Role, ref: ModelRef, mode: FakeTensorMode
) -> PreTrainedModel:
    """What `load_model` makes of a folder with this config, without data."""
    if role.head == "scalar":
        config.num_labels = 1
    with mode:
        model = class_for(config, role, ref.name).from_config(config, dtype=torch.float32)
    silence(model)
    set_attention(model, ref)
    freeze_other_parts(model)
    return cast(PreTrainedModel, model)


def faked(model: PreTrainedModel, mode: FakeTensorMode) -> PreTrainedModel:
    """A loaded model whose data is forgotten."""
    silence(model)
    freeze_other_parts(model)
    forget(model, mode)
    return model


def forget(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replace the parameters and buffers that have data."""
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            if not isinstance(p, FakeTensor):
                setattr(module, name, nn.Parameter(mode.from_tensor(p.data), p.requires_grad))
        for name, b in list(module.named_buffers(recurse=False)):
            if not isinstance(b, FakeTensor):
                module.register_buffer(name, cast(Tensor, mode.from_tensor(b)))
