"""Rows side by side in one row of a model, each seeing itself alone: no column is padding.

Positions count from 0 in every row. On a GPU a kernel for rows of any lengths reads where each of
them begins; elsewhere a mask hides the others, which is slower than passes with padding.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from alignzoo.engine.models.heads import body_of, evaluating, probe_ids
from alignzoo.engine.models.prefixes import off, sees_all_before, visible, within_rounding

HALF = (torch.bfloat16, torch.float16)  # what the kernel takes
WIDEST = 256  # numbers of a head
LENGTHS = (7, 4, 5)  # of the rows of the trial
GROUPED = "enable_gqa" in inspect.signature(varlen_attn).parameters  # torch 2.11 has no such word


def beside(positions: Tensor, edges: Tensor, longest: int) -> Mapping[str, Any]:
    """What a body is given beside ids [1, t] of rows that lie side by side.

    `positions` are [1, t], `edges` [k + 1] int32 where rows begin and the last one ends. The words
    are those of transformers for flash attention. The mask keeps it from making one of [t, t].
    """
    return {
        "position_ids": positions,
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=positions.device),
        **{"cu_seq_lens_q": edges, "cu_seq_lens_k": edges},
        **{"max_length_q": longest, "max_length_k": longest},
    }


def joins_rows(model: PreTrainedModel) -> bool:
    """Whether rows side by side have the hidden states of rows of their own.

    It is tried on a few tokens in the model's own precision, where the mask stands for the kernel;
    what a short trial cannot see is refused by the config.
    """
    if not sees_all_before(model) or not _heeds_edges():
        return False
    with evaluating(model), torch.autocast(model.device.type, enabled=False):
        return _tried(body_of(model), probe_ids(model)[0, : sum(LENGTHS)])


def kernel_takes(model: PreTrainedModel) -> bool:
    """Whether the kernel computes the model's attention at this moment: in half precision."""
    if model.device.type != "cuda" or isinstance(next(model.parameters()), FakeTensor):
        return False
    dtype = _now("cuda", model.dtype)
    return dtype in HALF and _kernel_holds(dtype)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention of transformers' `sdpa`, and of rows side by side where `beside` says so.

    q, k, v are [1, heads, t, d]; the outcome is [1, t, heads, d].
    """
    edges: Tensor | None = more.get("cu_seq_lens_q")
    if edges is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    if more.get("position_bias") is not None or more.get("dropout") or query.shape[-1] > WIDEST:
        raise ValueError("rows side by side take no bias, no dropout and no wider heads")
    scale = more.get("scaling") or query.shape[-1] ** -0.5
    dtype = _now(query.device.type, query.dtype)
    if query.device.type != "cuda" or dtype not in HALF:
        mask = visible(_numbers(edges)[None] + 1)
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scale)
    rows = [x[0].transpose(0, 1).to(dtype) for x in (query, key, value)]  # [t, heads, d]
    return _by_kernel(rows, edges, more["max_length_q"], scale)[None], None


def _now(device: str, dtype: torch.dtype) -> torch.dtype:
    """The precision of matrix products at this moment."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype


def _by_kernel(rows: list[Tensor], edges: Tensor, longest: int, scale: float) -> Tensor:
    """[t, heads, d of the values]; heads are as wide as the kernel takes them."""
    width, wide = rows[2].shape[-1], -(-max(x.shape[-1] for x in rows) // 8) * 8
    q, k, v = (pad(x, (0, wide - x.shape[-1])) for x in rows)
    times = q.shape[1] // k.shape[1]
    more: dict[str, Any] = {"window_size": (-1, 0), "scale": scale}
    if GROUPED:
        more["enable_gqa"] = times > 1
    elif times > 1:
        k, v = (x.repeat_interleave(times, 1) for x in (k, v))
    found = cast(Tensor, varlen_attn(q, k, v, edges, edges, longest, longest, **more))
    return found[..., :width].contiguous()


def _numbers(edges: Tensor) -> Tensor:
    """[t] the number of every token's row."""
    sizes = edges.diff()
    return torch.arange(len(sizes), device=edges.device).repeat_interleave(sizes)


@cache
@torch.no_grad()
def _kernel_holds(dtype: torch.dtype) -> bool:
    """Whether this machine's kernel gives two rows what attention is, on numbers drawn once."""
    noise, edges = torch.Generator().manual_seed(0), torch.tensor([0, 9, 16], dtype=torch.int32)
    q, k, v = (torch.randn(1, heads, 16, 40, generator=noise) for heads in (4, 2, 2))
    mask = visible(_numbers(edges)[None] + 1)
    k, v = repeat_kv(k, 2), repeat_kv(v, 2)
    expected = nn.functional.scaled_dot_product_attention(q, k, v, mask)[0].transpose(0, 1)
    try:
        rows = [x[0].transpose(0, 1).to("cuda", dtype) for x in (q, k, v)]
        found = _by_kernel(rows, edges.to("cuda"), 9, q.shape[-1] ** -0.5)
    except Exception:  # an old device, or a build without the kernel
        return False
    return within_rounding(off(found.cpu(), expected), dtype)


def _heeds_edges() -> bool:
    """Let transformers compute `sdpa` by `attend`, unless another package has put its own there."""
    if ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward:
        AttentionInterface.register("sdpa", attend)
    return ALL_ATTENTION_FUNCTIONS["sdpa"] is attend


@torch.no_grad()
def _tried(body: Any, ids: Tensor) -> bool:
    """Rows side by side give what they give alone, and not if they see each other."""
    sizes = torch.tensor([0, *LENGTHS], dtype=torch.int32, device=ids.device)
    edges = sizes.cumsum(0, dtype=torch.int32)
    positions = torch.cat([torch.arange(n, device=ids.device) for n in LENGTHS])[None]
    given = beside(positions, edges, max(LENGTHS))
    whole = beside(positions, edges[[0, -1]], len(ids))
    try:
        rows = [body(input_ids=row[None], use_cache=False) for row in ids.split(LENGTHS)]
        apart = torch.cat([row.last_hidden_state[0] for row in rows])
        joined, seen = (
            body(input_ids=ids[None], use_cache=False, **more).last_hidden_state[0]
            for more in (given, whole)
        )
    except Exception:  # whatever a family raises, it does not take such rows
        return False
    error, effect = off(joined, apart), off(seen, apart)
    return within_rounding(error, apart.dtype) and error <= effect / 10
