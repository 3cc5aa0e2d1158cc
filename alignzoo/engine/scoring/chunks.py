"""Logits of some positions in storage that is used again, and where their gradient goes.

Fresh pages cost as much as the arithmetic on a CPU, so [n, V] tensors are made once and kept until
the scorer is dropped with its stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.engine.models.heads import Head
from alignzoo.engine.scoring.rows import Heads, States

TILE = 512  # tokens of the vocabulary
Gradient = Mapping[str, tuple[Tensor, Tensor | None]]  # role -> d / d logits [n, V], times [n]
Summed = dict[str, tuple[Tensor | None, Tensor | None, Tensor | None]]  # role -> d / d h, W, b


@dataclass
class Buffers:
    """Storage by what it is for."""

    held: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def get(self, key: tuple[str, str], shape: Sequence[int], like: Tensor) -> Tensor:
        """Something of a shape, with the type and device of `like`; it holds anything."""
        n, held = math.prod(shape), self.held.get(key)
        if held is None or held.numel() < n or (held.dtype, held.device) != kind_of(like):
            held = self.held[key] = like.new_empty(n)
        return held[:n].view(*shape)


def kind_of(x: Tensor) -> tuple[torch.dtype, torch.device]:
    """What storage must share with a tensor to take its place."""
    return x.dtype, x.device


def scale_of(head: Head) -> float:
    """What the output layer's product is multiplied by in place; a cap is not, nor what is capped.

    A cap is left to autograd.
    """
    transform = head.transform
    if transform.cap is not None:
        return 1.0
    return (transform.factor or 1.0) / (transform.divisor or 1.0)


class Chunks:
    """One pass over the positions of a call, slice by slice. Runs outside autograd and autocast.

    Logits and their gradient are float32. On a GPU the factors of a product are as narrow as the
    layer's weights, or as autocast would make them (`half`): rounded once, multiplied exactly and
    added up in float32, at many times the speed. It is bfloat16 alone, whose range is float32's: a
    gradient may be small. Scalar heads and the CPU round nothing.
    """

    def __init__(
        self, hidden: States, heads: Heads, buffers: Buffers, half: torch.dtype | None = None
    ) -> None:
        self.hidden, self.heads, self.buffers, self.half = hidden, heads, buffers, half
        self._wide: dict[str, Tensor] = {}
        self._narrow: dict[str, Tensor] = {}

    def wide(self, role: str) -> Tensor:
        """[V, H] weights in at least float32; narrower ones are widened once per pass."""
        if role not in self._wide:
            weight = self.heads[role].linear.weight.detach()
            like = weight.new_empty(0, dtype=torch.promote_types(weight.dtype, torch.float32))
            if weight.dtype != like.dtype:
                weight = self.buffers.get(("weight", role), weight.shape, like).copy_(weight)
            self._wide[role] = weight
        return self._wide[role]

    def rounds(self, role: str) -> bool:
        """Whether the factors of a role's products are bfloat16."""
        head = self.heads[role]
        given = {head.linear.weight.dtype, self.hidden[role].dtype}
        half = given == {torch.bfloat16} or (self.half is not None and torch.float64 not in given)
        return half and head.linear.weight.is_cuda and head.width > 1

    def narrow(self, role: str) -> Tensor | None:
        """[V, H] weights in bfloat16, made once per pass; None where nothing is rounded."""
        if role not in self._narrow and self.rounds(role):
            self._narrow[role] = self.heads[role].linear.weight.detach().to(torch.bfloat16)
        return self._narrow.get(role)

    def logits(self, at: slice) -> dict[str, Tensor]:
        """{role: [n, V]} before any cap, in at least float32; the next call writes over them."""
        return {role: self._logits(role, self.hidden[role][at]) for role in self.hidden}

    def _logits(self, role: str, hidden: Tensor) -> Tensor:
        linear = self.heads[role].linear
        weight, narrow = linear.weight.detach(), self.narrow(role)
        like = weight.new_empty(0, dtype=torch.promote_types(weight.dtype, torch.float32))
        z = self.buffers.get(("logits", role), (len(hidden), len(weight)), like)
        if narrow is None:
            _product(hidden.to(like.dtype), self.wide(role), z)
        else:
            torch.mm(hidden.to(narrow.dtype), narrow.t(), out_dtype=like.dtype, out=z)
        if linear.bias is not None:
            z.add_(linear.bias.detach().to(z.dtype))
        scale = scale_of(self.heads[role])
        return z if scale == 1 else z.mul_(scale)


def _product(hidden: Tensor, weight: Tensor, z: Tensor) -> None:
    """Write hidden weight^T into z; on the CPU a tile of the vocabulary at a time.

    Of a thin product as a whole a third of the time goes into laying the weights out anew.
    """
    tile = TILE if z.device.type == "cpu" else len(weight)
    for i in range(0, len(weight), tile):
        torch.mm(hidden, weight[i : i + tile].t(), out=z[:, i : i + tile])


class Sums:
    """d / d hidden states, weights and biases of the roles that learn, in at least float32."""

    def __init__(self, chunks: Chunks, live: Mapping[str, tuple[bool, bool]]) -> None:
        self.chunks, self.live = chunks, live  # role -> whether h, and whether the head, learns
        self.found: Summed = {}

    def add(self, at: slice, gradient: Gradient) -> None:
        """Add what a slice of positions contributes."""
        for role, (dz, upstream) in gradient.items():
            times = _scaled(dz, upstream, scale_of(self.chunks.heads[role]))
            wide = torch.promote_types(dz.dtype, torch.float32)
            of_hidden, of_weight, of_bias = self._of(role, wide)
            if of_bias is not None:
                of_bias.add_(_summed(dz, times, wide))
            narrow = self.chunks.narrow(role)
            factor = dz if narrow is None else dz.to(narrow.dtype)
            if of_hidden is not None:
                weight = self.chunks.wide(role) if narrow is None else narrow
                _multiplied(factor, weight, of_hidden[at])
                if times is not None:
                    of_hidden[at].mul_(times[:, None])
            if of_weight is not None:
                hidden = self.chunks.hidden[role][at].to(wide)
                hidden = hidden if times is None else hidden * times[:, None]
                _added(factor.t(), hidden.to(factor.dtype), of_weight)

    def _of(self, role: str, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
        if role not in self.found:
            of_hidden, of_head = self.live[role]
            linear = self.chunks.heads[role].linear
            weight, bias = linear.weight.detach(), linear.bias
            self.found[role] = (
                torch.zeros_like(self.chunks.hidden[role], dtype=dtype) if of_hidden else None,
                torch.zeros_like(weight, dtype=dtype) if of_head else None,
                torch.zeros_like(bias, dtype=dtype) if of_head and bias is not None else None,
            )
        return self.found[role]


def _summed(dz: Tensor, times: Tensor | None, wide: torch.dtype) -> Tensor:
    """[V] over positions, in the type of `wide`."""
    if times is None:
        return dz.sum(0, dtype=wide)
    if dz.dtype == wide:
        return times @ dz
    return torch.mm(times.to(dz.dtype)[None], dz, out_dtype=wide)[0]


def _multiplied(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Write a b; narrow factors are added up in the type of `out`."""
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    else:
        torch.mm(a, b, out_dtype=out.dtype, out=out)


def _added(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Add a b to `out`, in its type."""
    if a.dtype == out.dtype:
        out.addmm_(a, b)
    else:
        torch.addmm(out, a, b, out_dtype=out.dtype, out=out)


def _scaled(dz: Tensor, times: Tensor | None, scale: float) -> Tensor | None:
    """[n] what the gradient of each position is still to be multiplied by."""
    if scale == 1:
        return times
    wide = torch.promote_types(dz.dtype, torch.float32)
    return dz.new_full((len(dz),), scale, dtype=wide) if times is None else times * scale
