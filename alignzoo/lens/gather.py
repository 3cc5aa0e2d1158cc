"""A method on all responses together: what it prepares from a whole buffer, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import PluginError, described
from alignzoo.contract.types import Batch, Item, RolloutBatch, Signals, TextBatch
from alignzoo.data.tokens import numbers_of
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.train.guard import prepared_by
from alignzoo.engine.train.world import BufferWorld
from alignzoo.lens.answers import reader_of
from alignzoo.lens.methods import Loaded, Method
from alignzoo.lens.read import EVERY, Quantity, Reader, Reading, Rows, wider
from alignzoo.lens.responses import Answered, items_of


@dataclass(frozen=True)
class Readings:
    """A method on all responses."""

    method: Method
    quantities: tuple[Quantity, ...]  # the method's own first
    distributions: tuple[str, ...]
    official: bool  # the positions that the method's own options name
    rows: tuple[Reading, ...]
    notes: tuple[str, ...] = ()


def read_method(
    loaded: Loaded,
    rows: Sequence[Answered],
    rewards: Sequence[float] | None,
    pad_id: int,
    size: int = 16,
    step: Callable[[int], None] = lambda done: None,
) -> Readings:
    """All that a method says of the responses; `step` is told how many are done.

    `rewards` are those that the stage's rollouts would earn, where its method learns from them.
    Advantages and other values of `prepare` are those of these responses as one buffer.
    """
    reader, found, kept = Reader(loaded, pad_id, size), list[Reading](), list[Signals]()
    algorithm = loaded.method.algorithm
    whole = _overrides(algorithm, "prepare") or _overrides(algorithm, "shown")
    context = min(loaded.contexts.values(), default=None)
    items = _valued(rows, items_of(rows, algorithm, reader_of(loaded), context), rewards)
    for reading, own in reader.read(items):
        found.append(reading)
        kept.append(own if whole else {})
        step(len(found))
    buffer = _Buffer.of(loaded.method, items, kept, pad_id) if whole else None
    known = list(reader.quantities.values())
    made = buffer.quantities if buffer else []
    if buffer:
        found = [replace(r, values={**r.values, **buffer.row(b)}) for b, r in enumerate(found)]
    return Readings(
        loaded.method,
        (*(q for q in known if q.origin != EVERY), *made, *(q for q in known if q.origin == EVERY)),
        reader.distributions,
        reader.official,
        tuple(found),
        (*loaded.method.notes, *(buffer.notes if buffer else ())),
    )


def _overrides(algorithm: Algorithm[Any], member: str) -> bool:
    return getattr(type(algorithm), member) is not getattr(Algorithm, member)


@dataclass(frozen=True)
class _Buffer:
    """All responses as one batch, with what `prepare` and `shown` make of it."""

    rows: Rows
    made: Mapping[str, tuple[str, Tensor]]  # name -> (the member that made it, [B, S])
    algorithm: Algorithm[Any]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        method: Method,
        items: Sequence[Item],
        own: Sequence[Signals],
        pad_id: int,
    ) -> _Buffer:
        """`own` are the method's signals, row by row."""
        algorithm = method.algorithm
        every = Rows.of(items, pad_id)
        grids = _grids(own, every.batch.ids.shape[1])
        made: dict[str, tuple[str, Tensor]] = {}
        notes = []
        if _overrides(algorithm, "prepare"):
            why, batch = _batch(algorithm.batch, items, pad_id)
            if batch is None:
                notes.append(f"{method.label}: what `prepare` makes is not shown: {why}")
            else:
                known = {n: x for n, x in grids.items() if n.partition("/")[0]
                         in algorithm.snapshots()}  # fmt: skip
                found = _prepared(method, batch, known)
                made |= {n: ("prepare", x) for n, x in found.items() if x.shape == batch.ids.shape}
        prepared = {n: x for n, (_, x) in made.items()}
        shown = _shown(algorithm, {**grids, **prepared})
        return cls(
            every, made | {n: ("shown", x) for n, x in shown.items()}, algorithm, tuple(notes)
        )

    @property
    def quantities(self) -> list[Quantity]:
        """In the order in which they were made."""
        units = self.algorithm.units
        return [Quantity(n, units.get(n, ""), o, (0,)) for n, (o, _) in self.made.items()]

    def row(self, number: int) -> dict[str, Tensor]:
        """The values of one response; they stand at the positions of its tokens."""
        mask = self.rows.batch.mask
        return {
            n: self.rows.cut(x.float().where(mask, torch.nan), number)
            for n, (_, x) in self.made.items()
        }


def _grids(own: Sequence[Signals], width: int) -> dict[str, Tensor]:
    """[B, S] of every signal from its rows."""
    return {
        name: torch.stack([functional.pad(row[name], (0, width - len(row[name]))) for row in own])
        for name in own[0]
    }


def _valued(
    rows: Sequence[Answered], items: Sequence[Item], rewards: Sequence[float] | None
) -> list[Item]:
    """The items with the numbers of their rows, and of a rollout, as far as they are known."""
    groups = {row.tokens.prompt: float(number) for number, row in enumerate(rows)}
    ended = [
        {"ended": float(row.response.ended), "group": groups[row.tokens.prompt]} for row in rows
    ]
    earned = [{} if rewards is None else {"reward": x} for x in rewards or [0.0] * len(rows)]
    told = [numbers_of(row.prompt.meta) for row in rows]
    return [
        replace(item, values={**own, **e, **r})
        for item, own, e, r in zip(items, told, ended, earned, strict=True)
    ]


def _batch(kind: type[Batch], items: Sequence[Item], pad_id: int) -> tuple[str, Any]:
    """The responses as the method's kind of batch, or why they are none."""
    if not issubclass(kind, TextBatch):
        return f"it reads a {kind.__name__}, and these are single responses", None
    if issubclass(kind, RolloutBatch) and "reward" not in items[0].values:
        return "it needs the reward of every response", None
    known = [name for name in items[0].values if all(name in item.values for item in items)]
    if lost := sorted(_own_fields(kind).difference(known)):
        return f"it needs the number '{lost[0]}' of every row", None
    return "", wider(kind.collate(items, pad_id), pad_id)


def _own_fields(kind: type[Batch]) -> set[str]:
    return {field.name for field in fields(kind)} - {field.name for field in fields(Batch)}


def _prepared(method: Method, batch: Batch, known: Signals) -> dict[str, Tensor]:
    algorithm = method.algorithm
    world = BufferWorld(start_ranks(method.precision), batch, algorithm.init_state(),
                        (method.seed, "lens"))  # fmt: skip
    return prepared_by(algorithm, batch, known, world)


def _shown(algorithm: Algorithm[Any], signals: Signals) -> dict[str, Tensor]:
    try:
        found = dict(algorithm.shown(signals))
    except Exception as error:
        raise PluginError(f"'{algorithm.name}': `shown` failed: {described(error)}") from error
    shapes = {x.shape for x in signals.values()}
    for name, x in found.items():
        if not isinstance(x, Tensor) or x.shape not in shapes or name in signals:
            raise PluginError(
                f"'{algorithm.name}': `shown` must return values [B, S] under names of their own; "
                f"'{name}' is not"
            )
    return found
