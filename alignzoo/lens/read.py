"""What a method reads from its models on given responses, position by position.

A response of n tokens has n + 1 positions: the one that predicts its first token, ..., and the one
that sits on its last token and predicts what would follow. Position j predicts token j: `aligned`.
Code that forgets the shift reads position j + 1 at token j: `official`. All n + 1 are read, so that
both can be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.closed import Scratch
from alignzoo.contract.errors import PluginError, described
from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.types import Batch, Item, Outputs, Signal, TextBatch, Tokens
from alignzoo.engine.parallel.ranks import arithmetic
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.lens.methods import Loaded, Method
from alignzoo.lens.top import Top, read_top, top_signal
from alignzoo.ops import entropy, kl, label_log_prob, log_prob

TOP = 5  # tokens of every distribution
UNITS = {"log_prob": "nats", "entropy": "nats", "kl": "nats"}  # by the key of a signal
TOP_OF = "top of "  # before a distribution's name, in the scorer's one namespace
EVERY = "of every method"


@dataclass(frozen=True)
class Quantity:
    """A per-token number that a page can colour by."""

    name: str
    unit: str
    origin: str  # "signals", "snapshots", "prepare", "shown", or that every method has it
    at: tuple[int, ...]  # token t may be given the value of position t + x, x in `at`


@dataclass(frozen=True)
class Reading:
    """All that a method says of one response of n tokens."""

    values: Mapping[str, Tensor]  # quantity -> [n + 1] float32; NaN where it is not defined
    top: Mapping[str, Top]  # distribution -> n + 1 positions


@dataclass(frozen=True)
class Plan:
    """The signals of a method, and what else is read beside them."""

    own: Mapping[str, Signal]
    origins: Mapping[str, str]  # signal -> the member that gave it
    every: Mapping[str, Signal]  # read of every method

    @classmethod
    def of(cls, method: Method) -> Plan:
        """Raises PluginError when two of the method's signals have one name."""
        algorithm = method.algorithm
        live, known = algorithm.signals(), algorithm.snapshots()
        if clash := sorted(live.keys() & known.keys()):
            raise PluginError(
                f"'{algorithm.name}': '{clash[0]}' is a signal and a snapshot; name one otherwise"
            )
        origins = dict.fromkeys(live, "signals") | dict.fromkeys(known, "snapshots")
        return cls({**live, **known}, origins, _every(method))


def _every(method: Method) -> dict[str, Signal]:
    """Log-probability and entropy of the main model; its ratio and KL to every other."""
    main, roles = method.main, method.language_models
    if main not in roles:
        return {}
    found = {f"log p of {main}": log_prob(main), f"entropy of {main}": entropy(main)}
    for role in roles[1:]:
        found[f"log {main}/{role}"] = _log_ratio(main, role)
        found[f"KL({main} || {role})"] = kl(main, role)
    return found


def _log_ratio(of: str, to: str) -> Signal:
    """Log p_of(label) - log p_to(label)."""

    def reduce(out: Outputs, labels: Tensor) -> Tensor:
        return label_log_prob(out[of], labels) - label_log_prob(out[to], labels)

    def form(
        out: Outputs, labels: Tensor, scratch: Scratch, wanted: Collection[str]
    ) -> tuple[Tensor, Outputs]:
        return scratch.label_log_prob(of, labels) - scratch.label_log_prob(to, labels), {}

    return Signal((of, to), reduce, key="log_prob", closed=form)


def _of_role(role: str, out: Outputs) -> Tensor:
    return out[role]


def _made(algorithm: Algorithm[Any], name: str, out: Outputs) -> Tensor:
    return algorithm.distributions(out)[name]


# --- positions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Some responses as a batch with one more column of padding, so that all end alike."""

    rows: Sequence[Tokens]
    batch: TextBatch
    pad_id: int
    values: Sequence[Mapping[str, Any]]  # the numbers of each row

    @classmethod
    def of(cls, items: Sequence[Item], pad_id: int) -> Rows:
        """Items of one row each, with the views that roles see, in their order."""
        batch = wider(TextBatch.collate(items, pad_id), pad_id)
        return cls([item.rows[0] for item in items], batch, pad_id, [x.values for x in items])

    @property
    def span(self) -> Tensor:
        """[B, S] bool: the n + 1 positions of every response."""
        column = torch.arange(self.batch.ids.shape[1])
        first = torch.tensor([len(row.prompt) for row in self.rows])[:, None] - 1
        last = first + torch.tensor([len(row.response) for row in self.rows])[:, None]
        return (column >= first) & (column <= last)

    def cut(self, grid: Tensor, row: int) -> Tensor:
        """[n + 1] of one response from [B, S]."""
        start = len(self.rows[row].prompt) - 1
        return grid[row, start : start + len(self.rows[row].response) + 1].clone()

    def placed(self, signal: Signal, kind: type[Batch]) -> Placed:
        """Where a method that eats this kind of batch reads a signal, whichever of an item's rows a
        response may be. What is read at the responses' positions can be read one later as well.
        """
        own = self._mask(signal, kind)
        batch = self.batch
        if bool((own == batch.response).all()):
            return Placed(own, batch.mask | batch.response, (0, 1), late=True)
        if bool((own == batch.mask).all()):
            return Placed(own, batch.mask | batch.response, (0, 1))
        sits = bool((own & ~batch.mask & self.span).any())
        return Placed(own, own, (1,) if sits else (0,))

    def _mask(self, signal: Signal, kind: type[Batch]) -> Tensor:
        """[B, S] bool; each row stands in every place that an item of the kind has.

        Which answers of a group a method learns from, their scores decide: here all are shown.
        """
        if issubclass(kind, GroupBatch):
            return self.batch.mask
        usual = {f.name for f in fields(Batch)}
        unknown = {f.name: 0.0 for f in fields(kind) if f.name not in usual}
        items = [
            Item((row,) * kind.rows_per_item, {**unknown, **values})
            for row, values in zip(self.rows, self.values, strict=True)
        ]
        batch = wider(kind.collate(items, self.pad_id), self.pad_id)
        return signal.mask(batch).view(kind.rows_per_item, len(self.rows), -1).any(0)


def wider(batch: Any, pad_id: int) -> Any:
    """The batch with a column of padding: the longest row's end has a label like the others'."""
    return replace(
        batch,
        ids=functional.pad(batch.ids, (0, 1), value=pad_id),
        attention=functional.pad(batch.attention, (0, 1)),
        response=functional.pad(batch.response, (0, 1)),
    )


@dataclass(frozen=True)
class Placed:
    """Where a signal is defined, and where it is read."""

    own: Tensor  # [B, S] bool, as the method says
    read: Tensor  # [B, S] bool
    at: tuple[int, ...]  # see `Quantity`
    late: bool = False  # the method reads it one position late


# --- reading -----------------------------------------------------------------------------------


class Reader:
    """Reads a method on responses, `size` rows at a time."""

    def __init__(self, loaded: Loaded, pad_id: int, size: int) -> None:
        self.method, self.module = loaded.method, loaded.module
        self.pad_id, self.size = pad_id, size
        self.plan = Plan.of(self.method)
        self.roles = self.method.language_models
        self.made = _names_made(self.method, self.module)
        self.quantities: dict[str, Quantity] = {}  # known once something was read
        self.official = False

    @property
    def distributions(self) -> tuple[str, ...]:
        """Those of the roles, then those that the method makes of them."""
        return (*self.roles, *self.made)

    def read(self, items: Sequence[Item]) -> Iterator[tuple[Reading, dict[str, Tensor]]]:
        """What is said of each row, and the method's own signals as a loss would get them: whole
        rows [S], zero outside their positions.
        """
        for start in range(0, len(items), self.size):
            yield from self._read(Rows.of(items[start : start + self.size], self.pad_id))

    def _read(self, part: Rows) -> Iterator[tuple[Reading, dict[str, Tensor]]]:
        batch, span = part.batch, part.span
        kind = self.method.algorithm.batch
        where = {name: part.placed(signal, kind) for name, signal in self.plan.own.items()}
        where |= dict.fromkeys(self.plan.every, Placed(batch.mask, span, (0, 1)))
        every = {**self.plan.own, **self.plan.every}
        signals = {name: _at(signal, where[name].read) for name, signal in every.items()}
        found = self._found(batch, {**signals, **self._tops(span)})
        tops = {n: found.pop(n) for n in list(found) if n.startswith(TOP_OF)}
        of = {n: self.signal_of(n) for n in found}
        self._note(found, of, where)
        for row in range(len(part.rows)):
            at = {n: part.cut(x, row) for n, x in tops.items()}
            top = {n: read_top(TOP_OF + n, at) for n in self.distributions}
            values = {
                n: part.cut(x.where(where[of[n]].read, torch.nan), row) for n, x in found.items()
            }
            own = {n: x[row].where(where[of[n]].own[row], 0) for n, x in found.items()}
            yield Reading(values, top), {n: x for n, x in own.items() if of[n] in self.plan.own}

    def _note(
        self, rows: Iterable[str], of: Mapping[str, str], where: Mapping[str, Placed]
    ) -> None:
        self.official = self.official or any(place.late for place in where.values())
        for name in rows:
            signal = {**self.plan.own, **self.plan.every}[of[name]]
            usual = UNITS.get(signal.key or "", "")
            unit = self.method.algorithm.units.get(name, usual)
            origin = self.plan.origins.get(of[name], EVERY)
            self.quantities[name] = Quantity(name, unit, origin, where[of[name]].at)

    def _tops(self, span: Tensor) -> dict[str, Signal]:
        algorithm = self.method.algorithm
        logits: dict[str, Callable[[Outputs], Tensor]] = {}
        logits |= {role: partial(_of_role, role) for role in self.roles}
        logits |= {name: partial(_made, algorithm, name) for name in self.made}
        return {
            TOP_OF + name: top_signal(
                (name,) if name in self.roles else self.roles, made, TOP, _positions(span)
            )
            for name, made in logits.items()
        }

    @torch.no_grad()
    def _found(self, batch: TextBatch, signals: Mapping[str, Signal]) -> dict[str, Tensor]:
        """{row: [B, S]} on the CPU, in the arithmetic of the stage."""
        device = next(self.module.parameters()).device
        with arithmetic(self.method.precision, device.type):
            rows: Mapping[str, Tensor] = self.module(batch.to(device), signals)
        return {name: x.cpu() for name, x in rows.items()}

    def signal_of(self, row: str) -> str:
        """The signal that a row "signal" or "signal/row" belongs to."""
        names = (*self.plan.own, *self.plan.every)
        return next((n for n in names if row == n), "") or next(
            n for n in names if row.startswith(f"{n}/")
        )


def _at(signal: Signal, mask: Tensor) -> Signal:
    """The signal at these positions [B, S]."""
    return replace(signal, positions=_positions(mask))


def _positions(mask: Tensor) -> Callable[[Batch], Tensor]:
    return lambda batch: mask.to(batch.ids.device)


def _names_made(method: Method, module: ScoringModule) -> tuple[str, ...]:
    """The distributions that a method makes of those of its roles, tried on one position."""
    widths = {role: module.heads[role].width for role in method.language_models}
    out = {role: torch.zeros(1, width) for role, width in widths.items()}
    try:
        return tuple(method.algorithm.distributions(out))
    except Exception as error:
        raise PluginError(
            f"'{method.algorithm.name}': `distributions` failed: {described(error)}"
        ) from error
