"""A sampling loop written by hand for one architecture: what `rollout.py` compares with.

Weights of a Llama used directly, a static KV cache, rotations and masks made beforehand, the head
on the last position, a draw by inverse CDF (in two levels where the vocabulary is wide), and the
log-prob of every token, as any on-policy method needs it. No stop tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

BLOCK, WIDE = 512, 4096


class Loop:
    """Rows of prompts [B, P], left-padded, and T tokens to be sampled for each."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], new: int) -> None:
        self.model, config = model.model, model.config
        self.head, self.eps = model.lm_head.weight, config.rms_norm_eps
        self.heads, self.width = config.num_attention_heads, config.hidden_size
        self.size = self.width // self.heads
        self.prompt = max(map(len, prompts))
        pads = torch.tensor([self.prompt - len(p) for p in prompts])[:, None]
        columns = torch.arange(self.prompt + new)
        self.ids = torch.tensor([[0] * (self.prompt - len(p)) + list(p) for p in prompts])
        hidden = columns < pads
        self.mask = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)[:, None, None]
        self.cos, self.sin = self._rotation((columns - pads).clamp(min=0))
        shape = len(prompts), self.heads, self.prompt + new, self.size
        self.cache = [(torch.empty(shape), torch.empty(shape)) for _ in self.model.layers]

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 1, P + T, d]."""
        theta = self.model.config.rope_parameters["rope_theta"]
        turn = theta ** (-torch.arange(0, self.size, 2) / self.size)
        angles = positions[..., None] * torch.cat([turn, turn])
        return angles.cos()[:, None], angles.sin()[:, None]

    def _causal(self) -> Tensor:
        """[B, 1, P, P] for the prompts; a padded position sees itself, so that it is a number."""
        n = self.prompt
        seen = torch.ones(n, n).tril().bool() & (self.mask[..., :n] == 0)
        seen = seen | torch.eye(n, dtype=torch.bool)
        return torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)

    def _turned(self, x: Tensor, start: int, end: int) -> Tensor:
        left, right = x.chunk(2, -1)
        turned = torch.cat([-right, left], -1)
        return x * self.cos[:, :, start:end] + turned * self.sin[:, :, start:end]

    def _read(self, x: Tensor, start: int, end: int, mask: Tensor) -> Tensor:
        """Embeddings [B, n, H] of columns start to end -> logits [B, V] behind the last."""
        b, n = x.shape[:2]
        for layer, (keys, values) in zip(self.model.layers, self.cache, strict=True):
            own, mlp = layer.self_attn, layer.mlp
            h = rms_norm(x, (self.width,), layer.input_layernorm.weight, self.eps)
            q, k, v = (
                linear(h, part.weight).view(b, n, self.heads, self.size).transpose(1, 2)
                for part in (own.q_proj, own.k_proj, own.v_proj)
            )
            keys[:, :, start:end] = self._turned(k, start, end)
            values[:, :, start:end] = v
            seen = keys[:, :, :end], values[:, :, :end]
            y = scaled_dot_product_attention(self._turned(q, start, end), *seen, mask)
            x = x + linear(y.transpose(1, 2).reshape(b, n, self.width), own.o_proj.weight)
            h = rms_norm(x, (self.width,), layer.post_attention_layernorm.weight, self.eps)
            gate = silu(linear(h, mlp.gate_proj.weight))
            x = x + linear(gate * linear(h, mlp.up_proj.weight), mlp.down_proj.weight)
        last = rms_norm(x[:, -1], (self.width,), self.model.norm.weight, self.eps)
        return linear(last, self.head)

    @torch.inference_mode()
    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and log-probs [B, T] from numbers in [0, 1) [B, T]."""
        embedding = self.model.embed_tokens.weight
        tokens, log_probs = [], []
        logits = self._read(embedding[self.ids], 0, self.prompt, self._causal())
        for step in range(noise.shape[1]):
            p = logits.softmax(-1)
            token = draw(p, noise[:, step])
            tokens.append(token)
            log_probs.append(p.gather(1, token[:, None])[:, 0].log())
            at = self.prompt + step
            if step < noise.shape[1] - 1:
                x = embedding[token][:, None]
                logits = self._read(x, at, at + 1, self.mask[..., : at + 1])
        return torch.stack(tokens, 1), torch.stack(log_probs, 1)


def draw(p: Tensor, u: Tensor) -> Tensor:
    """[B] tokens of p [B, V] where the cumulative sum passes u [B]."""
    if p.shape[1] <= WIDE:
        sums = p.cumsum(-1, dtype=torch.float64)
        token = torch.searchsorted(sums, u[:, None] * sums[:, -1:], right=True)
        return token[:, 0].clamp(max=p.shape[1] - 1)
    n = -(-p.shape[1] // BLOCK)
    parts = [part.sum(-1) for part in p.split(BLOCK, 1)] if p.shape[1] % BLOCK else []
    sums = torch.stack(parts, 1) if parts else p.view(len(p), n, BLOCK).sum(-1)
    sums = sums.cumsum(-1, dtype=torch.float64)
    target = u[:, None] * sums[:, -1:]
    block = torch.searchsorted(sums, target, right=True).clamp(max=n - 1)
    rest = target - torch.nn.functional.pad(sums, (1, 0)).gather(1, block)
    columns = (block * BLOCK + torch.arange(BLOCK)).clamp(max=p.shape[1] - 1)
    inner = p.gather(1, columns).cumsum(-1, dtype=torch.float64)
    inside = torch.searchsorted(inner, rest, right=True).clamp(max=BLOCK - 1)
    return (block * BLOCK + inside)[:, 0].clamp(max=p.shape[1] - 1)
