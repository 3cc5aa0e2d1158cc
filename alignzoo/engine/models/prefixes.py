"""Whether several answers may stand behind one copy of their prompt, in one row of a model.

Each answer then sees the prompt and itself: positions count from the prompt's, and a mask hides
the other answers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from transformers import PreTrainedConfig, PreTrainedModel

from alignzoo.engine.models.heads import body_of, evaluating, probe_ids

MASKED = ("sdpa",)  # attention that takes a mask [n, 1, w, w]
NEAR = (  # a token sees so many others at most, which masks of our own would undo
    "sliding_window",
    "sliding_window_size",
    "window_size",
    "attention_window",
    "attention_window_size",
    "attention_chunk_size",
    "keep_window_size",
    "index_topk",
)
FULL = ("full_attention", "attention")
PROMPT, ANSWER = 6, 5  # tokens of the trial
CLOSE = {torch.bfloat16: 3e-2, torch.float16: 3e-3}  # of hidden states; float32 and wider: 1e-4


def shares_prompts(model: PreTrainedModel) -> bool:
    """Whether hidden states behind a shared prompt are those of rows of their own.

    What a short trial cannot see is refused by the config; the rest is tried: convolutions and
    recurrent layers would carry one answer into the next, and families may place or mask tokens by
    themselves.
    """
    if not sees_all_before(model):
        return False
    with evaluating(model), torch.autocast(model.device.type, enabled=False):
        return _tried(body_of(model), probe_ids(model)[0, : PROMPT + 2 * ANSWER])


def sees_all_before(model: PreTrainedModel) -> bool:
    """Whether a token sees every earlier one, as far as the config says, by attention with masks.

    Tensors without data answer nothing: they cannot be tried.
    """
    config = model.config.get_text_config()
    if config._attn_implementation not in MASKED or _sees_near_tokens_alone(config):
        return False
    return not any(isinstance(p, FakeTensor) for p in model.parameters())


def visible(segments: Tensor) -> Tensor:
    """[n, 1, w, w] bool: what a token sees: earlier ones of its own segment, and of segment 0."""
    w = segments.shape[1]
    earlier = torch.ones(w, w, dtype=torch.bool, device=segments.device).tril()
    own = segments[:, :, None] == segments[:, None]
    return (earlier & (own | (segments == 0)[:, None]))[:, None]


def _sees_near_tokens_alone(config: PreTrainedConfig) -> bool:
    kinds = getattr(config, "layer_types", None) or ()
    return any(getattr(config, name, None) for name in NEAR) or bool({*kinds} - {*FULL})


@torch.no_grad()
def _tried(body: Any, ids: Tensor) -> bool:
    """Two answers behind one prompt give what they give as rows, and not if they see each other."""
    prompt, one, other = ids.split([PROMPT, ANSWER, ANSWER])
    rows = torch.stack([torch.cat([prompt, one]), torch.cat([prompt, other])])
    column = torch.arange(len(ids), device=ids.device)
    segments = column.sub(PROMPT).floor_divide(ANSWER).add(1).clamp(min=0)[None]
    positions = torch.where(column < PROMPT + ANSWER, column, column - ANSWER)[None]
    more = {"position_ids": positions, "use_cache": False}
    try:
        apart = body(input_ids=rows, use_cache=False).last_hidden_state
        behind = body(input_ids=ids[None], attention_mask=visible(segments), **more)
        seen = body(input_ids=ids[None], attention_mask=visible(segments * 0), **more)
    except Exception:  # whatever a family raises, it does not take such a mask
        return False
    expected = torch.cat([apart[0], apart[1, PROMPT:]])
    error, effect = (off(made.last_hidden_state[0], expected) for made in (behind, seen))
    return within_rounding(error, apart.dtype) and error <= effect / 10


def off(made: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest entry."""
    difference = made.float() - expected.float()
    return float(difference.abs().max() / expected.float().abs().max())


def within_rounding(error: float, dtype: torch.dtype) -> bool:
    """Whether hidden states of this precision may differ so much from equal ones."""
    return error <= CLOSE.get(dtype, 1e-4)
