"""One optimiser step: micro-batches, global denominators, clipping. Nobody else reduces a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import PluginError, TrainingError, place_of
from alignzoo.contract.types import Batch, Loss, Signal, Signals, State
from alignzoo.engine.layout.base import Layout
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.scoring.ahead import Ahead, Tally
from alignzoo.engine.scoring.packing import Packer
from alignzoo.engine.train.balance import Balance
from alignzoo.engine.train.batches import micro_batches
from alignzoo.engine.train.guard import guarded_loss
from alignzoo.engine.train.phases import BACKWARD, FORWARD, OPTIMISER, Clock
from alignzoo.engine.train.rails import AUX
from alignzoo.engine.train.separable import is_separable
from alignzoo.engine.train.sums import Sums, collect, means, plain_weight, total_loss

REDONE = "redone"
GAP = "rollout/logprob_gap"
LossOf = Callable[[Batch, Signals, State], Loss]


class NotFiniteError(TrainingError):
    """A step gave metrics that are not finite; the weights are those before it."""

    def __init__(self, metrics: Mapping[str, float]) -> None:
        self.metrics = metrics
        super().__init__(", ".join(n for n, x in metrics.items() if not math.isfinite(x)))


@dataclass(frozen=True)
class Known:
    """Signals that need no forward: snapshots and prepared values, plus zeros for live ones."""

    signals: Signals
    batch: Batch

    def __getitem__(self, name: str) -> Tensor:
        known = self.signals.get(name)
        return torch.zeros_like(self.batch.ids, dtype=torch.float32) if known is None else known

    def get(self, name: str, default: Tensor | None = None) -> Tensor:
        """As `[]`: every name is known here."""
        return self[name]

    def __contains__(self, name: object) -> bool:
        """Every name is known here; without this, Python would ask for item after item."""
        return True

    def __iter__(self) -> Iterator[str]:
        """Raise TypeError: which names are live is not known here."""
        raise TypeError("the signals of a loss cannot be listed; ask for each by its name")


@dataclass(frozen=True)
class Denominators:
    """What is known of every term before any forward, by its name."""

    totals: Mapping[str, float]  # global sum of weights
    weights: Mapping[str, Tensor]  # of this rank's items, where they do not count once each
    scales: Mapping[str, float]


def denominators(
    loss_of: LossOf, batch: Batch, given: Signals, state: State, ranks: Ranks
) -> Denominators:
    """Global sum of weights, weights and scale of each term, before any forward.

    `loss` runs once with zeros for the live signals: weights depend on the batch alone, and
    `check_denominators` compares them with what the real micro-batches used.
    """
    known: Any = Known(given, batch)
    named = loss_of(batch, known, state).named
    sums = torch.stack([term.weights.double().sum() for term in named.values()])
    totals = ranks.sum(sums.to(ranks.device)).tolist()
    return Denominators(
        dict(zip(named, totals, strict=True)),
        {name: term.weight for name, term in named.items() if term.weight is not None},
        {name: term.scale for name, term in named.items()},
    )


def check_denominators(
    algorithm: Algorithm[Any], expected: Denominators, found: Mapping[str, tuple[float, float]]
) -> None:
    """A weight that depends on a live signal would make the gradient depend on micro-batches."""
    for name, total in expected.totals.items():
        actual = found.get(f"term/{name}", (0.0, 0.0))[1]
        moved = found.get(f"moved/{name}", (0.0, 0.0))[0]
        if not abs(actual - total) <= _rounding(total):
            odd = f"sum to {actual:g}, but to {total:g} before the forward"
        elif not moved <= _rounding(total):
            odd = "are others than before the forward, although their sum is the same"
        else:
            continue
        at = place_of(algorithm.loss)
        raise PluginError(
            f"algorithm '{algorithm.name}': the weights of term '{name}' {odd}; "
            f"weights must depend on the batch alone{f' ({at})' if at else ''}"
        )


def _rounding(total: float) -> float:
    return 1e-6 * max(1.0, abs(total))


def share_of_loss(loss: Loss, known: Denominators) -> Tensor:
    """A micro-batch's share of the loss: sum over terms of scale * sum(v w) / global sum(w).

    A value of weight 0 counts as 0 whatever it is, and so does a term whose weights are all 0.
    """
    parts = []
    for name, term in loss.named.items():
        total, value, weight = known.totals[name], term.value, plain_weight(term)
        if weight is not None and weight.dtype == torch.bool:
            value = value.masked_fill(~weight, 0.0)
        elif weight is not None:
            value = value.masked_fill(weight == 0, 0.0) * weight
        parts.append(value.sum() * (known.scales[name] / total if total else 0.0))
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum()


def foreseen(
    loss_of: LossOf,
    part: Batch,
    given: Signals,
    state: State,
    known: Denominators,
    scale: float,
    rows: Signals,
) -> Tensor:
    """What a micro-batch adds to the loss, from rows of which some may be lacking: zeros."""
    signals: Any = Known({**given, **rows}, part)
    return share_of_loss(loss_of(part, signals, state), known) * scale


@dataclass(frozen=True)
class Stepper:
    """What stays the same from step to step."""

    algorithm: Algorithm[Any]
    layout: Layout
    optim: Optim
    ranks: Ranks
    balance: Balance = field(default_factory=Balance)
    clock: Clock = field(default_factory=Clock)
    separable: bool = False  # whether gradients are formed ahead of the loss, where it takes parts

    def loss_of(self, batch: Batch, signals: Signals, state: State) -> Loss:
        """The method's loss, and that of routers where it is asked for."""
        loss = guarded_loss(self.algorithm, batch, signals, state)
        return self.balance.add(self.algorithm, loss, batch, signals)

    def plain_loss(self, batch: Batch, signals: Signals, state: State) -> Loss:
        """The same of made-up rows, which needs no guard: the true one has it."""
        loss = self.algorithm.loss(batch, signals, state)
        return self.balance.add(self.algorithm, loss, batch, signals)

    def __call__(
        self, batch: Batch, given: Signals, items: Tensor, state: State, extra: Mapping[str, Signal]
    ) -> dict[str, float]:
        """One update on some items of a buffer; an idle rank lends any item, which is not counted.

        Returns global metrics, among them the `GAP` of `extra` signals to what is given of them.
        """
        sums, known_terms = self.gradients(batch, given, items, state, extra)
        with self.clock.during(OPTIMISER):
            norms = self.layout.clip(self.optim.max_grad_norm)
        totals = sums.totals(self.ranks)
        check_denominators(self.algorithm, known_terms, totals)
        found = means(totals) | sums.largest(self.ranks)
        metrics = self._finish(found, known_terms.scales, norms)
        with self.clock.during(OPTIMISER):
            self.layout.step()
        return metrics

    def gradients(
        self, batch: Batch, given: Signals, items: Tensor, state: State, extra: Mapping[str, Signal]
    ) -> tuple[Sums, Denominators]:
        """Add the gradients of some items to the weights', micro-batch by micro-batch.

        Returns this rank's sums, and what was known of the terms before.
        """
        sums = Sums()
        share, known = _share(batch, given, items)
        known_terms, tally = denominators(self.loss_of, share, known, state, self.ranks), Tally()
        every = {**self.algorithm.signals(), **extra}
        packer = Packer(share)
        parts = self.micro(packer)
        padding = self._padding(packer, parts)
        weights = [share.take_signals(items, known_terms.weights) for items in parts]
        placed = [self.placed(share, known, items) for items in parts]
        for turn in self.layout.turns(list(zip(placed, weights, strict=True))):
            (part, signals), weighed = turn.part
            scale = self.ranks.loss_scale if turn.counts else 0
            value = partial(foreseen, self.plain_loss, part, signals, state, known_terms, scale)
            with self.layout.unsynced(turn.last):
                with self.clock.during(FORWARD):
                    live = self._forward(part, every, Ahead(value, self.separable, tally))
                loss = self.loss_of(part, {**signals, **live}, state)
                if turn.counts:
                    self._count(sums, loss, weighed)
                    _compare(sums, {n: s.mask(part) for n, s in extra.items()}, live, signals)
                with self.clock.during(BACKWARD):
                    own = share_of_loss(loss, known_terms)
                    self.layout.backward(own if scale == 1 else own * scale)
                    del live, loss, own  # the graph, before there is another
        self._measure(sums, share, padding)
        sums.know(REDONE, float(tally.redone), 1.0)
        return sums, known_terms

    def decided(
        self, ahead: bool | None, batch: Batch, given: Signals, items: Tensor, state: State
    ) -> Stepper:
        """Itself, told whether to form gradients ahead of the loss. Collective at the first step,
        when nobody knows: then all ranks try the loss on made-up rows.
        """
        pays = self._pays(batch, given, items, state) if ahead is None else ahead
        return replace(self, separable=pays)

    def _pays(self, batch: Batch, given: Signals, items: Tensor, state: State) -> bool:
        share, of_share = _share(batch, given, items)
        part, known = self.placed(share, of_share, self.micro(Packer(share))[0])
        terms = denominators(self.loss_of, part, known, state, self.ranks)

        def value(rows: Signals) -> Tensor:
            return share_of_loss(self.plain_loss(part, rows, state), terms)

        found = is_separable(value, part, known, self.algorithm.signals())
        return not self.ranks.max(torch.tensor(float(not found))).item()

    def _count(self, sums: Sums, loss: Loss, weights: Mapping[str, Tensor]) -> None:
        """Add what is logged of a micro-batch, and how far it is from the weights before."""
        collect(self.algorithm, loss, sums)
        for name, term in loss.named.items():
            sums.compare(name, term, weights.get(name))
        for name in self.balance.names:
            sums.add(name + AUX, loss.named[name].value, loss.named[name].weights)

    def _padding(self, packer: Packer, parts: Sequence[Tensor]) -> list[float]:
        """How much of each micro-batch is padding."""
        rows = [packer.batch.rows(part).tolist() for part in parts]
        with self.ranks.autocast():  # which may decide how rows are passed
            return self.layout.scoring.padding_in(packer, rows, self.balance.roles)

    def _measure(self, sums: Sums, share: Batch, padding: Sequence[float]) -> None:
        """Add the tokens of answers, and the padding of each micro-batch."""
        sums.know("response_length", float(share.response.sum()), float(len(share.response)))
        for part in padding:
            sums.know("padding", part, 1.0)

    def micro(self, packer: Packer) -> list[Tensor]:
        """The items of every forward pass."""
        shared = partial(self.layout.scoring.bodies.any_shared, self.layout.trained)
        return micro_batches(packer, self.optim.micro_batch_size, shared)

    def placed(
        self, batch: Batch, given: Signals, items: Tensor
    ) -> tuple[Batch, dict[str, Tensor]]:
        """Some items and what is known of them, where the models are."""
        device = self.ranks.device
        signals = {k: x.to(device) for k, x in batch.take_signals(items, given).items()}
        return batch.take(items).to(device), signals

    def _forward(
        self, part: Batch, signals: Mapping[str, Signal], ahead: Ahead | None = None
    ) -> dict[str, Tensor]:
        with self.ranks.autocast():
            rows: dict[str, Tensor] = self.layout.module(part, signals, self.balance.roles, ahead)
        return rows

    def _finish(
        self, found: dict[str, float], scales: Mapping[str, float], norms: Mapping[str, Tensor]
    ) -> dict[str, float]:
        metrics = total_loss(found, scales)
        if not metrics.get(REDONE):
            metrics.pop(REDONE, None)
        for role, norm in norms.items():
            metrics["grad_norm" if len(norms) == 1 else f"grad_norm/{role}"] = norm.item()
        if not all(map(math.isfinite, metrics.values())):
            raise NotFiniteError(metrics)
        return metrics


def _compare(sums: Sums, masks: Mapping[str, Tensor], live: Signals, known: Signals) -> None:
    """Add how far live values [B, S] are from known ones; NaN: there is nothing to compare with."""
    for name, mask in masks.items():
        far = (live[name].detach() - known[name]).abs()
        sums.add(GAP, far, mask & ~known[name].isnan())


def _share(batch: Batch, given: Signals, items: Tensor) -> tuple[Batch, Signals]:
    """Some items and what is known of them; itself where it is all of them."""
    if torch.equal(items, torch.arange(batch.n_items)):
        return batch, given
    return batch.take(items), batch.take_signals(items, given)


@torch.no_grad()
def evaluate_loss(
    stepper: Stepper, buffers: Sequence[tuple[Batch, Signals]], state: State
) -> dict[str, float]:
    """The loss and metrics of held-out buffers with the present weights."""
    sums, scales = Sums(), {}
    stepper.layout.scoring.eval()  # layers that recompute themselves need not
    for batch, given in buffers:
        for turn in stepper.layout.turns(stepper.micro(Packer(batch))):
            part, signals = stepper.placed(batch, given, turn.part)
            live = stepper._forward(part, stepper.algorithm.signals())
            loss = stepper.loss_of(part, {**signals, **live}, state)
            scales = {name: term.scale for name, term in loss.named.items()}
            if turn.counts:
                collect(stepper.algorithm, loss, sums)
    return total_loss(sums.reduce(stepper.ranks), scales)
