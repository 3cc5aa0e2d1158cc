"""What a scorer is given and gives, and the readable one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from torch import Tensor

from alignzoo.contract.types import Outputs, Signal
from alignzoo.engine.models.heads import Head
from alignzoo.engine.scoring.forms import rows_of

States = Mapping[str, Tensor]  # role -> [N, H]
Heads = Mapping[str, Head]
Named = dict[str, Tensor]


class Upstream(Protocol):
    """d loss / d rows before the loss is known: a forecast, which the backward pass verifies."""

    def pays(self, chunks: int) -> bool:
        """Whether it is likely to be right when positions are read in so many chunks."""
        ...

    def missed(self) -> None:
        """It was wrong; the gradient is formed once more."""
        ...

    def __call__(self, at: slice, rows: Named, learn: Collection[str]) -> Named:
        """{row: [n]} of the rows that `learn`, from all rows [n] of some positions."""
        ...


class Scorer(Protocol):
    """How the rows of some signals come from hidden states."""

    def __call__(
        self,
        hidden: States,
        heads: Heads,
        labels: Tensor,
        signals: Mapping[str, Signal],
        upstream: Upstream | None = None,
    ) -> Named:
        """{row name: [N]}."""
        ...


def dense(
    hidden: States,
    heads: Heads,
    labels: Tensor,
    signals: Mapping[str, Signal],
    upstream: Upstream | None = None,
) -> Named:
    """All logits at once: the reference that every other scorer must equal."""
    return reduced({role: heads[role](h) for role, h in hidden.items()}, labels, signals)


def reduced(outputs: Outputs, labels: Tensor, signals: Mapping[str, Signal]) -> Named:
    """{row name: [n]} from logits."""
    rows: Named = {}
    for name, signal in signals.items():
        rows |= rows_of(name, signal, outputs, labels)
    return rows
