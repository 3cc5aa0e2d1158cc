"""The linear layer between the body's hidden states and the logits or values."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel


def head_output(head: nn.Linear, hidden: Tensor) -> Tensor:
    """[n, V] or [n, 1] in at least float32, whatever the inputs.

    Rounding logits to bfloat16 costs AlignDistil 5-23 % of gradient accuracy, because alpha
    multiplies their difference; so inputs are widened before the product.
    """
    weight, bias = head.weight, head.bias
    dtype = torch.promote_types(weight.dtype, torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        wide = None if bias is None else bias.to(dtype)
        return functional.linear(hidden.to(dtype), weight.to(dtype), wide)


def head_of(model: PreTrainedModel) -> nn.Linear:
    """The linear layer after the body: lm_head, or the scalar head of a sequence classifier."""
    score = getattr(model, "score", None)
    return cast(nn.Linear, model.get_output_embeddings() if score is None else score)
