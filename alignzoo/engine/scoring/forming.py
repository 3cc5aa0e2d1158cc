"""How rows of a chunk and their gradient by its logits come about: by autograd or formulas."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from alignzoo.contract.types import Signal
from alignzoo.engine.scoring.chunks import Gradient
from alignzoo.engine.scoring.forms import Forms
from alignzoo.engine.scoring.rows import Heads, Named, reduced

T = TypeVar("T")
FEW = 4096  # entries of a vocabulary
Guess = Callable[[Named], Named]  # {row: [n]} -> {row: d loss / d row [n]}


class Form(Protocol):
    """Rows and gradients of the logits of a chunk, which they may write over."""

    @property
    def wide(self) -> int:
        """How many [n, V] tensors per role it takes at once."""
        ...

    def rows(self, z: Named, labels: Tensor) -> Named:
        """{row: [n]}."""
        ...

    def both(self, z: Named, labels: Tensor, guess: Guess) -> tuple[Named, Gradient]:
        """Rows, and the gradient for the upstream that is guessed from them."""
        ...

    def pull(self, z: Named, labels: Tensor, upstream: Named) -> Gradient:
        """The gradient for a known upstream."""
        ...


@dataclass(frozen=True)
class Generic:
    """`reduce` and autograd on the logits of a chunk."""

    signals: Mapping[str, Signal]
    heads: Heads
    live: Collection[str]  # roles whose logits get a gradient
    wide: ClassVar[int] = 6

    def rows(self, z: Named, labels: Tensor) -> Named:
        """Without a graph."""
        with torch.no_grad():
            return reduced(self._capped(z), labels, self.signals)

    def both(self, z: Named, labels: Tensor, guess: Guess) -> tuple[Named, Gradient]:
        """One graph per chunk."""
        leaves = {role: x.detach().requires_grad_(role in self.live) for role, x in z.items()}
        with torch.enable_grad():
            rows = reduced(self._capped(leaves), labels, self.signals)
        seen = {name: x.detach() for name, x in rows.items()}
        upstream = guess(seen)
        names = [name for name in upstream if rows[name].requires_grad]
        roles = [role for role in z if role in self.live]
        if not names:
            return seen, {}
        found = torch.autograd.grad(
            [rows[name] for name in names],
            [leaves[role] for role in roles],
            [upstream[name] for name in names],
            allow_unused=True,
        )
        pairs = zip(roles, found, strict=True)
        return seen, {role: (dz, None) for role, dz in pairs if dz is not None}

    def pull(self, z: Named, labels: Tensor, upstream: Named) -> Gradient:
        """The rows are made again for their graph."""
        return self.both(z, labels, lambda _: upstream)[1]

    def learning(self, labels: Tensor) -> dict[str, bool]:
        """{row: whether a gradient goes through it}, seen on one position with made-up logits."""
        made = {role: self._flat(role) for role in self.heads}
        return on_few(self._learning, made, labels[:1])

    def _learning(self, flat: Named, labels: Tensor) -> dict[str, bool]:
        leaves = {role: x.clone().requires_grad_(role in self.live) for role, x in flat.items()}
        with torch.enable_grad():
            rows = reduced(leaves, labels, self.signals)
        return {name: x.requires_grad for name, x in rows.items()}

    def _flat(self, role: str) -> Tensor:
        weight = self.heads[role].linear.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return torch.zeros(1, dtype=dtype, device=weight.device).expand(1, self.heads[role].width)

    def _capped(self, z: Named) -> Named:
        """What the model makes of its logits, where that is more than a factor."""
        heads = self.heads
        capped = {r: heads[r].transform for r in z if heads[r].transform.cap is not None}
        return {role: capped[role](x) if role in capped else x for role, x in z.items()}


@dataclass(frozen=True)
class ByFormula:
    """The closed forms of all signals, block by block over the logits."""

    forms: Forms
    wide: ClassVar[int] = 2

    def rows(self, z: Named, labels: Tensor) -> Named:
        """Without a gradient."""
        return self.forms.rows(z, labels)

    def both(self, z: Named, labels: Tensor, guess: Guess) -> tuple[Named, Gradient]:
        """In one go where no two rows with a gradient share a role; the upstream comes later."""
        if self.forms.alone:
            rows, row_of = self.forms.unit(z, labels)
            upstream = guess(rows)
            return rows, _timed(z, row_of, upstream)
        rows = self.forms.rows(z, labels)
        upstream = guess(rows)
        return rows, self._pulled(z, labels, upstream)

    def pull(self, z: Named, labels: Tensor, upstream: Named) -> Gradient:
        """As `both`, without rows."""
        if self.forms.alone:
            _, row_of = self.forms.unit(z, labels)
            return _timed(z, row_of, upstream)
        return self._pulled(z, labels, upstream)

    def _pulled(self, z: Named, labels: Tensor, upstream: Named) -> Gradient:
        self.forms.pull(z, labels, upstream)
        return {role: (z[role], None) for role in self.forms.live}


def _timed(z: Named, row_of: Mapping[str, str], upstream: Named) -> Gradient:
    return {role: (z[role], upstream[row]) for role, row in row_of.items() if row in upstream}


def on_few(look: Callable[[Named, Tensor], T], z: Named, labels: Tensor) -> T:
    """What can be seen on few entries of a vocabulary, in little memory; else on all of them.

    Elsewhere than on a CPU at once on all: an index out of bounds ends a process there.
    """
    if labels.device.type != "cpu":
        return look(z, labels)
    try:
        return look({role: x[:, :FEW] for role, x in z.items()}, labels % FEW)
    except (IndexError, RuntimeError):  # it asks for a certain token
        return look(z, labels)
