"""The promises of an algorithm, each tried on tiny models in float64."""

from __future__ import annotations

import os
import random
import re
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.types import Batch, RolloutBatch
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.engine.train.guard import guarded_loss, prepared_by
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.moving import special_of
from alignzoo.engine.train.world import BufferWorld
from alignzoo.testing.checks import (
    Check,
    Trial,
    explained,
    raise_broken,
    require,
    survive_yaml,
    try_all,
)
from alignzoo.testing.extras import extra_trials
from alignzoo.testing.forms import form_trials
from alignzoo.testing.processes import STRATEGIES, check_strategies, differences
from alignzoo.testing.toys import (
    Gradients,
    Shown,
    gradients,
    items_for,
    scoring,
    shown,
    tiny_model,
    toy_batch,
    toy_job,
    toy_rollout,
    toy_run,
)

TOLERANCE = 1e-9  # of float64 losses and gradients
SOURCE = re.compile(r"arXiv:\d|https?://|doi:", re.IGNORECASE)
SEEDS = 5  # of all sources of randomness, which must not matter
NUMBERS = {2: "two", 3: "three", 4: "four"}
WIDE = 2000  # a vocabulary that dwarfs everything else in a tiny model


def check_algorithm(
    algorithm: Algorithm[Any], processes: int = 1, strategies: Sequence[str] = STRATEGIES
) -> None:
    """Raise PluginError with every promise of the contract that a method breaks.

    With several `processes` also whether they learn what one does, under each of the strategies
    ddp, fsdp2, zero2 and zero3 that are named. Raises UsageError for another name, and
    TrainingError for one that is not installed.
    """
    raise_broken(algorithm.name, run_algorithm_checks(algorithm, processes, strategies))


def run_algorithm_checks(
    algorithm: Algorithm[Any], processes: int = 1, strategies: Sequence[str] = STRATEGIES
) -> list[Check]:
    """Try every promise; which ones apply follows from what the method declares."""
    check_strategies(processes, strategies)
    batch = toy_batch(algorithm, 8)
    trials = [*_given(algorithm, batch), *_gradients(algorithm, batch)]
    trials += [*form_trials(algorithm), *extra_trials(algorithm, batch), *_loop(algorithm)]
    checks = [*try_all(_static(algorithm), algorithm), *try_all(trials, algorithm, "loss")]
    if processes == 1:
        return checks
    promise = f"{NUMBERS.get(processes, processes)} processes give the losses of one"
    member = "loss" if type(algorithm).prepare is Algorithm.prepare else "prepare"
    trial = (promise, lambda: _together(algorithm, processes, strategies))
    return [*checks, *try_all([trial], algorithm, member)]


# --- what can be read ---------------------------------------------------------------------------


def _static(algorithm: Algorithm[Any]) -> Iterator[tuple[str, Trial]]:
    yield "docstring has formula and source", lambda: _docstring(algorithm)
    yield "options are frozen and survive YAML", lambda: survive_yaml(algorithm)
    yield "options and metrics are explained", lambda: _explained(algorithm)
    yield "roles can be bound", lambda: _roles(algorithm)


def _docstring(algorithm: Algorithm[Any]) -> str:
    text = type(algorithm).__doc__ or ""
    require("=" in text.partition("\n")[0], "the first line of the docstring is not a formula")
    require(bool(SOURCE.search(text)), "the docstring names no source (arXiv:..., http or doi:)")
    return text.partition("\n")[0]


def _explained(algorithm: Algorithm[Any]) -> str:
    explained(algorithm)
    bare = [name for name, metric in algorithm.metrics.items() if not metric.doc]
    require(not bare, f"no explanation of {', '.join(bare)}")
    return f"{len(algorithm.metrics)} metrics"


def _roles(algorithm: Algorithm[Any]) -> str:
    roles = algorithm.roles
    require(any(role.trainable for role in roles.values()), "no role is trainable")
    lost = [r.like for r in roles.values() if r.like and r.like not in roles]
    require(not lost, f"`like` names roles that do not exist: {', '.join(lost)}")
    used = {r for s in _every_signal(algorithm).values() for r in s.roles}
    require(used <= set(roles), f"signals read undeclared roles: {sorted(used - set(roles))}")
    return ", ".join(roles)


def _every_signal(algorithm: Algorithm[Any]) -> dict[str, Any]:
    return {**algorithm.signals(), **algorithm.snapshots()}


# --- what `loss` and `prepare` are given --------------------------------------------------------


def _given(algorithm: Algorithm[Any], batch: Batch) -> Iterator[tuple[str, Trial]]:
    yield "batch, signals and state are left as they were", lambda: _left(algorithm, batch)
    yield "equal inputs give an equal loss: no randomness", lambda: _repeated(algorithm, batch)
    yield "weights depend on the batch alone", lambda: _weights(algorithm, batch)
    yield "every batch has every metric", lambda: _always(algorithm, batch)


def _left(algorithm: Algorithm[Any], batch: Batch) -> str:
    module = scoring(algorithm)
    state = algorithm.init_state()
    with torch.no_grad():
        given = module(batch, algorithm.snapshots())
        world = BufferWorld(start_ranks("fp32"), batch, state)
        given |= prepared_by(algorithm, batch, given, world)
        guarded_loss(algorithm, batch, {**given, **module(batch, algorithm.signals())}, state)
    return ""


def _repeated(algorithm: Algorithm[Any], batch: Batch) -> str:
    module = scoring(algorithm)

    def once(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        return _numbers(algorithm, batch, shown(algorithm, batch, module))

    first, others = once(0), [once(seed) for seed in range(1, SEEDS)]
    moved = [n for n, x in first.items() if not all(torch.equal(x, other[n]) for other in others)]
    require(not moved, f"{', '.join(moved)} differ in a second call; `prepare` has world.uniform")
    return f"{len(first)} values"


def _numbers(algorithm: Algorithm[Any], batch: Batch, seen: Shown) -> dict[str, Tensor]:
    """Everything a loss holds, by name."""
    loss = algorithm.loss(batch, {**seen.given, **seen.live}, seen.state)
    terms = {f"term {name}": term.value for name, term in loss.named.items()}
    weights = {f"weights of {name}": term.weights for name, term in loss.named.items()}
    metrics = {n: x if isinstance(x, Tensor) else x.value for n, x in loss.metrics.items()}
    return {**terms, **weights, **metrics, **{f"prepared {n}": x for n, x in seen.given.items()}}


def _weights(algorithm: Algorithm[Any], batch: Batch) -> str:
    seen = shown(algorithm, batch, scoring(algorithm))
    blind = replace(seen, live={name: torch.zeros_like(x) for name, x in seen.live.items()})
    before, after = (_numbers(algorithm, batch, x) for x in (blind, seen))
    names = [name for name in after if name.startswith("weights of ")]
    live = [n for n in names if not torch.allclose(before[n].to(after[n]), after[n], atol=1e-9)]
    require(not live, f"{', '.join(live)} change with the live signals")
    return f"{len(names)} terms"


def _always(algorithm: Algorithm[Any], batch: Batch) -> str:
    """One item at a time, all of them, and all with signals that are zero: the same names."""
    seen = shown(algorithm, batch, scoring(algorithm))
    zeros = {name: torch.zeros_like(x) for name, x in {**seen.given, **seen.live}.items()}
    every = {**seen.given, **seen.live}
    names = set(algorithm.loss(batch, every, seen.state).metrics)
    single = [torch.tensor([n]) for n in range(batch.n_items)]
    parts = [(batch.take(at), batch.take_signals(at, every)) for at in single]
    for part, signals in [(batch, zeros), *parts]:
        other = set(algorithm.loss(part, signals, seen.state).metrics)
        odd = sorted(names ^ other)
        require(not odd, f"{', '.join(odd)} is there for some batches only; give it a weight of 0")
    return f"{len(names)} metrics"


# --- gradients ----------------------------------------------------------------------------------


def _gradients(algorithm: Algorithm[Any], batch: Batch) -> Iterator[tuple[str, Trial]]:
    def compare(other: Gradients) -> str:
        distance = gradients(algorithm, batch).distance(other)
        require(distance <= TOLERANCE, f"loss or gradient differs by {distance:.3g}")
        return f"largest difference {distance:.1e}"

    yield "finite gradients, on trainable roles only", lambda: _reach(algorithm, batch)
    yield "fused scoring equals dense", lambda: _fused(algorithm, batch)
    yield (
        "micro-batches change nothing",
        lambda: compare(gradients(algorithm, batch, micro=3)),
    )
    yield "padding changes nothing", lambda: compare(gradients(algorithm, _wider(batch)))
    yield "no tensor of positions x vocabulary", lambda: _memory(algorithm)


def _fused(algorithm: Algorithm[Any], batch: Batch) -> str:
    """Rows, loss and gradient: by formulas and by autograd, with the gradient formed ahead of the
    loss (in parts, and in one) and after it.
    """
    right, largest, redone = gradients(algorithm, batch), 0.0, 0
    closed = any(signal.closed is not None for signal in algorithm.signals().values())
    for formulas in (True, False) if closed else (False,):
        for smallest, separable in ((5, False), (5, True), (WIDE, False)):
            scorer = Fused(1, smallest=smallest, small=0, formulas=formulas)
            found = gradients(algorithm, batch, scorer, separable=separable)
            far = {"loss or gradient": right.distance(found), **right.between_rows(found)}
            how = "formulas" if formulas else "autograd"
            for what, x in far.items():
                require(x <= TOLERANCE, f"{what} by {how} differs by {x:.3g}")
            largest, redone = max(largest, *far.values()), redone + found.redone
    again = f"; {redone} gradients formed twice" if redone else ""
    return f"largest difference {largest:.1e}{again}"


def _reach(algorithm: Algorithm[Any], batch: Batch) -> str:
    for role, grads in gradients(algorithm, batch).by_role.items():
        reached = [g for g in grads if g is not None]
        state = "gets a gradient" if reached else "gets no gradient"
        require(algorithm.roles[role].trainable == bool(reached), f"role '{role}' {state}")
        finite = all(torch.isfinite(g).all() for g in reached)
        require(finite, f"role '{role}' gets a gradient that is not finite")
    return ", ".join(name for name, role in algorithm.roles.items() if role.trainable)


def _wider(batch: Batch) -> Batch:
    """The same batch, and its views, with three more columns of padding."""
    pad = torch.nn.functional.pad
    views = {name: _wider(view) for name, view in batch.views.items()}
    wide = {n: pad(x, (0, 3)) for n, x in batch.tensors.items() if x.ndim == 2}
    return replace(batch, views=views, **wide)


class _Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor made."""

    size: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor):
                self.size = max(self.size, x.numel())
        return out


def _memory(algorithm: Algorithm[Any]) -> str:
    """The largest tensor of a pass must not grow with the number of sequences."""
    few, many = (_largest(algorithm, n) for n in (8, 32))
    require(few == many, f"largest tensor grows from {few:,} to {many:,} elements with the batch")
    return f"{many:,} elements at most"


def _largest(algorithm: Algorithm[Any], n: int) -> int:
    roles = algorithm.roles.items()
    special = special_of(algorithm)
    models = {k: tiny_model(i, r.head, WIDE) for i, (k, r) in enumerate(roles)}
    models = {role: model for role, model in models.items() if role not in special.shared}
    trainable = frozenset(name for name, role in roles if role.trainable)
    module = ScoringModule(models, trainable, Fused(1, smallest=8, small=0), special)
    batch = toy_batch(algorithm, n, WIDE)
    seen = _Largest()  # type: ignore[no-untyped-call]
    with seen:
        with torch.no_grad():
            module(batch, algorithm.snapshots())
        rows = module(batch, algorithm.signals())
        total = torch.stack([x.sum() for x in rows.values() if x.requires_grad]).sum()
        total.backward()
    return int(seen.size)


# --- the real loop ------------------------------------------------------------------------------


def _loop(algorithm: Algorithm[Any]) -> Iterator[tuple[str, Trial]]:
    yield "declared metrics are logged, and no others", lambda: _metrics(algorithm)
    yield "an interrupted run resumes bit for bit", lambda: _resume(algorithm)
    if algorithm.at_start():
        yield "the first step has its known values", lambda: _start(algorithm)
    if not issubclass(algorithm.batch, RolloutBatch | GroupBatch):
        yield "twenty steps lower the loss on a toy", lambda: _learning(algorithm)


def _run(algorithm: Algorithm[Any], folder: Path, **changes: Any) -> dict[str, Tensor]:
    """Weights of the trained roles after a short run in `folder`."""
    folder.mkdir(exist_ok=True)
    rollout = toy_rollout(algorithm)
    items: Sequence[Any] = () if rollout else items_for(algorithm, 11)
    job = toy_job(algorithm, items, folder, rollout=rollout, **changes)
    return {
        f"{role}.{name}": p.detach().clone()
        for role, model in train(job).items()
        for name, p in model.named_parameters()
    }


def _metrics(algorithm: Algorithm[Any]) -> str:
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        _run(algorithm, Path(folder), on_step=lambda s, t, metrics, _: seen.update(metrics))
    silent = sorted(set(algorithm.metrics) - seen)
    require(not silent, f"declared but never logged: {', '.join(silent)}")
    return f"{len(algorithm.metrics)} metrics"


def _resume(algorithm: Algorithm[Any]) -> str:
    def interrupt(step: int, total: int, metrics: Mapping[str, float], _: Any) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = _run(algorithm, folder / "whole")
        try:
            _run(algorithm, folder / "cut", on_step=interrupt)
        except KeyboardInterrupt:
            resumed = _run(algorithm, folder / "cut")
        logs = [(folder / n / "metrics.jsonl").read_bytes() for n in ("whole", "cut")]
    require(logs[0] == logs[1], "metrics after the resume differ from an uninterrupted run")
    same = all(torch.equal(x, resumed[n]) for n, x in whole.items())
    require(same, "weights after the resume differ from an uninterrupted run")
    return "metrics and weights"


def _start(algorithm: Algorithm[Any]) -> str:
    """With every `like` honoured, the first step's metrics are what the method says."""
    starts = {name: role.like or name for name, role in algorithm.roles.items()}
    seeds = {name: number for number, name in enumerate(algorithm.roles)}
    first: dict[str, float] = {}

    def remember(step: int, total: int, metrics: Mapping[str, float], _: Any) -> None:
        first.update(metrics if step == 1 else {})

    def load(role: str) -> Any:
        return tiny_model(seeds[starts[role]], algorithm.roles[role].head)

    with tempfile.TemporaryDirectory() as folder:
        _run(algorithm, Path(folder), load=load, on_step=remember)
    for name, expected in algorithm.at_start().items():
        wrong = f"{name} is {first[name]:.6g}, not {expected:.6g}"
        require(abs(first[name] - expected) <= 1e-4 * max(1.0, abs(expected)), wrong)
    return ", ".join(f"{name} = {x:.4g}" for name, x in algorithm.at_start().items())


def _learning(algorithm: Algorithm[Any]) -> str:
    losses = toy_run(algorithm, items_for(algorithm, 8), steps=20)
    require(losses[-1] < losses[0], f"from {losses[0]:.4g} to {losses[-1]:.4g}")
    return f"{losses[0]:.4g} -> {losses[-1]:.4g}"


# --- several processes --------------------------------------------------------------------------


def _together(algorithm: Algorithm[Any], processes: int, strategies: Sequence[str]) -> str:
    """Losses, metrics and gradient norms of real processes, each of which has a share."""
    found = "; ".join(differences([algorithm], processes, strategies)[0])
    remedy = "a process sees its share of the items: `world.mean` and `world.sum` see all"
    require(not found, f"{found}; {remedy}")
    return ", ".join(strategies)
