"""A metric that is not finite: which one, in which row, and what may be the cause."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import TrainingError
from alignzoo.contract.types import Batch, Loss, Max, Mean, Signals, State
from alignzoo.engine.models.tensors import open_to_readers
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.train.sources import Buffer
from alignzoo.engine.train.step import Stepper

SEQUENCES = ("ids", "attention", "response")  # of a batch that is kept
FORBIDDEN = (
    "leave out rows with tokens that a model forbids, or take models that forbid the same: "
    "something has probability exactly 0 where its logarithm counts"
)
NO_NUMBERS = "look at this row and at the weights of the models"
NO_REWARD = "look at this row and at the weights of the reward model"
FORMULA = "look at the method's formula and options: what is read from the models is finite there"


@dataclass(frozen=True)
class Evidence:
    """The first item of a batch that is not finite by itself."""

    place: str  # where it comes from, for people
    what: str  # "signal 'policy' is -inf"
    cause: str  # what to do about it
    learnt: bool = True  # it comes from a model that learns, or from all of them
    file: Path | None = None  # with the sequences that it was found among


Search = Callable[[], Evidence | None]


def refuse(
    metrics: Mapping[str, float], step: int, updates: int, search: Search, file: Path | None = None
) -> None:
    """Raise TrainingError when a metric of a step is not finite; `updates` were made before it.

    `search` is called only then, `file` keeps the sequences of this rank.
    """
    bad = [name for name, x in metrics.items() if not math.isfinite(x)]
    if not bad:
        return
    found = search()
    where = f"in {found.place}, {found.what}" if found else "no row is at fault by itself"
    cause = found.cause if found else NO_NUMBERS
    advice = f"no update has been made yet; {cause}"
    if updates:
        slower = "lower the learning rate, or " if found is None or found.learnt else ""
        advice = f"the weights before this step are kept; {slower}{cause}"
    shown = found.file if found and found.file else file
    kept = f" ({shown})" if shown else ""
    raise TrainingError(
        f"step {step}: {', '.join(bad)} became {metrics[bad[0]]} ({where}): {advice}{kept}"
    )


def everywhere(ranks: Ranks, search: Search, file: Path | None = None) -> Search:
    """What any rank finds, alike on all of them: whichever tells its error first tells the row.

    Collective, as metrics are: they are not finite on all ranks, or on none.
    """

    def found() -> Evidence | None:
        here = search()
        return ranks.first(replace(here, file=file) if here else None)

    return found


def find(
    stepper: Stepper, buffer: Buffer, given: Signals, items: Tensor, state: State
) -> Evidence | None:
    """Score items one by one until something of one is not finite: a signal, value or gradient.

    Where ranks make their passes together, all score equally many, and gradients, which are sums
    over ranks there, tell nothing about an item.
    """
    found = None
    for turn in stepper.layout.turns(items.tolist()):
        here = _fault_of(stepper, buffer, given, turn.part, state)
        found = found or (here if turn.counts else None)
        if found and not stepper.layout.together:
            break
    return found


def _fault_of(
    stepper: Stepper, buffer: Buffer, given: Signals, item: int, state: State
) -> Evidence | None:
    layout, algorithm = stepper.layout, stepper.algorithm
    own = {name: x for name, x in given.items() if name not in buffer.compare}
    part, known = stepper.placed(buffer.batch, own, torch.tensor([item]))
    with torch.set_grad_enabled(not layout.together), stepper.ranks.autocast():
        live = layout.scoring(part, algorithm.signals(), stepper.balance.roles)
    loss = stepper.loss_of(part, {**known, **live}, state)
    for odd in _odd_parts(algorithm, part, {**known, **live}, loss):
        return Evidence(buffer.place(item), *odd)
    if _steep(loss, [p for p in layout.scoring.parameters() if p.requires_grad]):
        return Evidence(buffer.place(item), "its gradient is not finite", FORMULA)
    return None


def find_in(stepper: Stepper, buffers: Iterable[Buffer], state: State) -> Evidence | None:
    """The first item of several buffers that `find` finds."""
    every = ((b, torch.arange(b.batch.n_items)) for b in buffers)
    found = (find(stepper, b, b.given, items, state) for b, items in every)
    several = list(found) if stepper.layout.together else found  # no rank may stop before another
    return next((x for x in several if x), None)


def odd_row(buffer: Buffer, rows: Signals) -> Evidence | None:
    """The first item whose reward, or whose values among these signals [B, S], are not finite."""
    for item, k in (~buffer.rewards.isfinite()).nonzero()[:1].tolist():
        what = f"its reward is {buffer.rewards[item, k].item()}"
        return Evidence(buffer.place(item), what, NO_REWARD, learnt=False)
    for name, x in rows.items():
        if x.ndim < 2 or name in buffer.compare:
            continue
        bad = (~x.isfinite() & buffer.batch.mask.to(x.device)).any(-1).nonzero()[:, 0]
        for row in bad[:1].tolist():
            what, cause = _odd(f"signal '{name}'", x[row])[0]
            return Evidence(buffer.place(row % buffer.batch.n_items), what, cause)
    return None


def save_batch(batch: Batch, items: Tensor, file: Path) -> None:
    """Keep the sequences of a step that went wrong, for a person to look at."""
    part = batch.take(items)
    every = {"": part, **{f"views/{name}/": view for name, view in part.views.items()}}
    kept = {f"{at}{n}": getattr(x, n) for at, x in every.items() for n in SEQUENCES}
    save_file({name: x.contiguous() for name, x in kept.items()}, file)
    open_to_readers(file)


def _odd_parts(
    algorithm: Algorithm[Any], part: Batch, signals: Signals, loss: Loss
) -> Iterator[tuple[str, str, bool]]:
    """What of one item is not finite, why, and whether it was learnt; causes come first."""
    for name, x in part.tensors.items():
        for what, _ in _odd(f"its {name}", x):
            yield what, NO_NUMBERS, False
    for name, x in signals.items():
        for what, cause in _odd(f"signal '{name}'", x):
            yield what, cause, _is_learnt(algorithm, name)
    values = {f"its term '{name}'": term.value for name, term in loss.named.items()}
    for name, m in loss.metrics.items():
        values[f"its '{name}'"] = m.value if isinstance(m, (Max, Mean)) else m
    for name, x in values.items():
        for what, _ in _odd(name, x):
            yield what, FORMULA, True


def _odd(name: str, x: Tensor) -> list[tuple[str, str]]:
    """At most one sentence about a tensor, with the cause."""
    odd = x.detach()[~x.isfinite()][:1].tolist()
    return [(f"{name} is {y}", FORBIDDEN if math.isinf(y) else NO_NUMBERS) for y in odd]


def _is_learnt(algorithm: Algorithm[Any], row: str) -> bool:
    """Whether a row of signals is read from a model that is trained."""
    every = {**algorithm.signals(), **algorithm.snapshots()}
    signal = every.get(row) or every.get(row.rpartition("/")[0])
    return signal is not None and any(algorithm.roles[role].trainable for role in signal.roles)


def _steep(loss: Loss, learnt: Sequence[Tensor]) -> bool:
    """Whether the gradient of any term of one item is not finite."""
    values = [t.value.masked_fill(t.weights == 0, 0.0).sum() for t in loss.named.values()]
    total = torch.stack(values).sum()
    if not total.requires_grad:
        return False
    grads = torch.autograd.grad(total, learnt, allow_unused=True)
    return any(not bool(g.isfinite().all()) for g in grads if g is not None)
