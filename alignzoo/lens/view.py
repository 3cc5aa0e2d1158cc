"""Everything that is looked at, in one value: the responses, their tokens, and what methods say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.contract.errors import UsageError, suggest
from alignzoo.lens.gather import Readings
from alignzoo.lens.read import Quantity
from alignzoo.lens.responses import Answered
from alignzoo.lens.tokens import Pieces

FIRST = ("shown", "prepare", "signals")  # whose quantity a page opens with
SHARE = 0.99  # of absolute values that lie within the colours' limits


@dataclass(frozen=True)
class Lens:
    """Some responses read by one or two methods."""

    rows: tuple[Answered, ...]
    texts: tuple[tuple[str, ...], ...]  # shown text of every token of every response
    methods: tuple[Readings, ...]
    pieces: Pieces
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        rows: Sequence[Answered],
        methods: Sequence[Readings],
        pieces: Pieces,
        notes: Sequence[str] = (),
    ) -> Lens:
        """The tokens are shown as they go on from the prompt."""
        texts = tuple(
            tuple(pieces.shown(row.tokens.response, row.tokens.prompt[-1])) for row in rows
        )
        every = (*notes, *(note for method in methods for note in method.notes))
        return cls(tuple(rows), texts, tuple(methods), pieces, every)

    @property
    def n_tokens(self) -> int:
        """Of all responses."""
        return sum(map(len, self.texts))

    @property
    def shift(self) -> int:
        """1 where the first method reads one position late by its own options, else 0."""
        return int(self.methods[0].official)


def opening(method: Readings, wanted: str | None = None) -> Quantity:
    """The quantity that a page opens with: the one asked for, else one of the method's own.

    Raises UsageError for a name that the method does not have.
    """
    known = {q.name: q for q in method.quantities}
    if wanted is not None and wanted not in known:
        names = ", ".join(known) or "none"
        raise UsageError(
            f"--signal {wanted}: {method.method.label} has no such signal{suggest(wanted, known)} "
            f"(it has {names})"
        )
    if wanted is not None:
        return known[wanted]
    own = (q for origin in FIRST for q in method.quantities if q.origin == origin)
    return next(own, method.quantities[0])


def shared_opening(one: Readings, two: Readings) -> tuple[Quantity, Quantity]:
    """The first quantity that both have, their own before those of every method."""
    other = {q.name: q for q in two.quantities}
    both = next((q for q in one.quantities if q.name in other), None)
    return (both, other[both.name]) if both else (opening(one), opening(two))


def at_tokens(method: Readings, quantity: Quantity, row: int, shift: int) -> Tensor:
    """[n] the value that every token of a response is given, NaN where there is none."""
    values = method.rows[row].values[quantity.name]
    late = shift if shift in quantity.at else quantity.at[0]
    return values[late : len(values) - 1 + late]


def limit_of(values: Sequence[Tensor]) -> float:
    """The absolute value at which colours saturate: 99 % of the finite values lie within."""
    every = torch.cat([torch.zeros(0), *values])
    finite = every[every.isfinite()].abs().sort().values
    if not len(finite):
        return 1.0
    found = float(finite[math.ceil(SHARE * len(finite)) - 1])
    return found or float(finite[-1]) or 1.0


def differences(lens: Lens, pair: tuple[Quantity, Quantity], shift: int) -> Iterator[Tensor]:
    """[n] first method minus second, response by response."""
    one, two = lens.methods[:2]
    for row in range(len(lens.rows)):
        yield at_tokens(one, pair[0], row, shift) - at_tokens(two, pair[1], row, shift)
