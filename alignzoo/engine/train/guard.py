"""What a method must leave alone: the batch and the signals it is shown, and its own weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import PluginError, place_of
from alignzoo.contract.types import Batch, Loss, Signals, State

PRIME = 1_000_003  # of fingerprints; ids x PRIME x columns stay far below 2^63


def guarded_loss(algorithm: Algorithm[Any], batch: Batch, signals: Signals, state: State) -> Loss:
    """`algorithm.loss`; PluginError when it changed what it was given."""
    shown = {**_fields(batch), **_tensors(signals), **{f"state {k}": x for k, x in state.items()}}
    with _untouched(algorithm, algorithm.loss, shown):
        return algorithm.loss(batch, signals, state)


def prepared_by(
    algorithm: Algorithm[Any], batch: Batch, signals: Signals, world: Any
) -> dict[str, Tensor]:
    """`algorithm.prepare`; PluginError when it changed what it was given."""
    if type(algorithm).prepare is Algorithm.prepare:
        return {}
    shown = {**_fields(batch), **_tensors(signals)}
    shown |= {f"state {k}": x for k, x in world.state.items()}
    with _untouched(algorithm, algorithm.prepare, shown):
        return dict(algorithm.prepare(batch, signals, world))


def fingerprint(weights: Tensor, batch: Batch) -> Tensor:
    """sum(w h), h in (0, 1) fixed by each row's ids and, for [B, S], the column.

    Equal for every way to cut a batch; weights with equal sums on other rows give another value.
    """
    columns = torch.arange(1, batch.ids.shape[1] + 1, device=batch.ids.device)
    factors = columns * 2_654_435 % PRIME
    rows = (batch.ids * batch.attention * factors).sum(-1) % PRIME  # [B] int64
    if len(weights) == batch.n_items != len(rows):
        parts = rows.view(batch.rows_per_item, -1)
        number = torch.arange(1, batch.rows_per_item + 1, device=rows.device)[:, None]
        rows = (parts * number).sum(0) % PRIME  # [I]
    shares = ((rows + 1) / (PRIME + 1)).double().to(weights.device)
    if weights.ndim == 2:
        shares = shares[:, None] * (factors + 1).double().to(weights.device) / PRIME
    return (weights.double() * shares).sum()


def _fields(batch: Batch) -> dict[str, Tensor]:
    own = {f"batch.{name}": x for name, x in batch.tensors.items()}
    views = ((f"batch.views['{name}']", view) for name, view in batch.views.items())
    return own | {f"{at}.{name}": x for at, view in views for name, x in view.tensors.items()}


def _tensors(signals: Signals) -> dict[str, Tensor]:
    """The signals by name; what stands in for live ones has its known ones in `signals`."""
    known: Mapping[str, Tensor] = getattr(signals, "signals", signals)
    return {f"signals['{name}']": x for name, x in known.items()}


@contextmanager
def _untouched(
    algorithm: Algorithm[Any], member: Callable[..., Any], shown: Mapping[str, Tensor]
) -> Iterator[None]:
    before = {name: x.detach().clone() for name, x in shown.items()}
    yield
    changed = [name for name, x in shown.items() if not _same(x.detach(), before[name])]
    if changed:
        at = place_of(member)
        raise PluginError(
            f"algorithm '{algorithm.name}': `{member.__name__}` changes {', '.join(changed)} in "
            f"place{f' ({at})' if at else ''}; these belong to the engine, so make a new tensor"
        )


def _same(x: Tensor, before: Tensor) -> bool:
    """Equal, NaN included."""
    if x.shape != before.shape:
        return False
    if torch.equal(x, before):
        return True
    return bool(((x == before) | (x.isnan() & before.isnan())).all())
