"""Real processes: what a method learns on several must be what it learns on one."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessException, spawn

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import AlignzooError, PluginError, UsageError, described, suggest
from alignzoo.engine.layout.build import LAYOUTS, check_strategy
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.parallel.agreement import end
from alignzoo.engine.train.loop import train
from alignzoo.testing.toys import items_for, toy_job, toy_rollout

STRATEGIES = ("ddp", "fsdp2")
# Shares of 3 and 2 on two. With a small eps Adam makes whole steps of gradients that are rounding.
OPTIM = Optim(steps=4, batch_size=5, micro_batch_size=2, lr=1e-2, eps=1e-4)
ITEMS = 13
LOSS, OTHER = 1e-5, 1e-4  # of the loss, absolute below 1; relative of norms and metrics
SMALL = 0.1  # a metric below it is as good as this
DEPENDS = ("padding", "redone")  # on how a batch is cut, and on nothing that is learnt
PATIENCE = timedelta(seconds=120)  # for another process in an exchange
ALONE = "one"
ERROR = "error"
GROUP = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
HIDDEN = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class _Plan:
    folder: Path  # FOLDER/number of the method/strategy holds a log
    processes: int
    strategies: tuple[str, ...]
    methods: tuple[bytes, ...]  # pickled


def check_strategies(processes: int, strategies: Sequence[str]) -> None:
    """Raises UsageError for what cannot be asked for, TrainingError for what is not installed."""
    if processes < 1:
        raise UsageError(f"{processes} processes; one at least")
    for strategy in strategies:
        if strategy not in LAYOUTS:
            known = f"they are {', '.join(LAYOUTS)}"
            raise UsageError(f"no strategy '{strategy}'{suggest(strategy, LAYOUTS)}; {known}")
        check_strategy(strategy)


def differences(
    algorithms: Sequence[Algorithm[Any]], processes: int, strategies: Sequence[str] = STRATEGIES
) -> list[list[str]]:
    """What several processes log otherwise than one: for each method, a sentence per strategy.

    Starts `processes` that train together and one that trains alone, once for all methods, on the
    CPU. Raises PluginError when a method cannot be sent there, or does not train.
    """
    with tempfile.TemporaryDirectory(prefix="alignzoo-check-") as name:
        methods = tuple(_packed(algorithm) for algorithm in algorithms)
        plan = _Plan(Path(name), processes, tuple(strategies), methods)
        _start(plan)
        return [list(_told(plan, n)) for n in range(len(methods))]


def _packed(algorithm: Algorithm[Any]) -> bytes:
    try:
        return pickle.dumps(algorithm)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise PluginError(
            f"other processes cannot import {type(algorithm).__name__} ({error}); define it at the "
            "top of a module, and let its options be plain values"
        ) from error


def _start(plan: _Plan) -> None:
    with _no_gpus():
        workers: Any = spawn(_work, (plan,), nprocs=plan.processes + 1, join=False)
    try:
        while not workers.join():
            pass
    except ProcessException as found:
        first = plan.folder / ERROR
        why = first.read_text() if first.exists() else str(found).strip().splitlines()[0]
        raise PluginError(why) from None


@contextmanager
def _no_gpus() -> Iterator[None]:
    """For processes that start meanwhile: two cannot share one."""
    before = os.environ.get(HIDDEN)
    os.environ[HIDDEN] = ""
    try:
        yield
    finally:
        del os.environ[HIDDEN]
        os.environ.update({} if before is None else {HIDDEN: before})


# --- in a process of its own --------------------------------------------------------------------


def _work(index: int, plan: _Plan) -> None:
    """Train every method; the last process does so alone, the others together."""
    alone = index == plan.processes
    os.environ.update(dict.fromkeys(GROUP[:2], str(index)))
    os.environ.update(dict.fromkeys(GROUP[2:], str(plan.processes)))
    for name in GROUP if alone else ():
        del os.environ[name]
    _silence(plan.folder / f"{index}.log")
    torch.set_num_threads(1)
    try:
        if not alone:
            _meet(plan, index)
        for number, method in enumerate(plan.methods):
            for strategy in (ALONE,) if alone else plan.strategies:
                _train(pickle.loads(method), plan.folder / str(number) / strategy, strategy)
    except Exception as error:  # a stranger's code may raise anything
        known = isinstance(error, AlignzooError)
        what = f"{type(error).__name__}: {error}" if known else described(error)
        where = "alone" if alone else f"process {index} of {plan.processes}"
        with suppress(FileExistsError), (plan.folder / ERROR).open("x") as file:
            file.write(f"{where}: {what}")
        raise
    end(0)


def _silence(log: Path) -> None:
    """Libraries greet from every process."""
    target = os.open(log, os.O_CREAT | os.O_WRONLY)
    os.dup2(target, 1)
    os.dup2(target, 2)


def _meet(plan: _Plan, rank: int) -> None:
    place = f"file://{plan.folder / 'meeting'}"
    how: dict[str, Any] = {"init_method": place, "timeout": PATIENCE}
    distributed.init_process_group("gloo", rank=rank, world_size=plan.processes, **how)


def _train(algorithm: Algorithm[Any], folder: Path, strategy: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rollout = toy_rollout(algorithm)
    items = () if rollout else items_for(algorithm, ITEMS)
    how = {"optim": OPTIM, "strategy": "ddp" if strategy == ALONE else strategy}
    train(toy_job(algorithm, items, folder, rollout=rollout, **how))


# --- what they logged ---------------------------------------------------------------------------


def _told(plan: _Plan, number: int) -> Iterator[str]:
    """The first difference under each strategy."""
    one = _rows(plan.folder / str(number) / ALONE)
    for strategy in plan.strategies:
        several = _rows(plan.folder / str(number) / strategy)
        if len(one) != len(several):
            yield f"{strategy}: {len(several)} steps on several processes, {len(one)} on one"
            continue
        each = zip(one, several, strict=True)
        found = next((said for a, b in each if (said := _difference(a, b, plan.processes))), "")
        if found:
            yield f"{strategy}, {found}"


def _difference(one: Mapping[str, float], several: Mapping[str, float], processes: int) -> str:
    odd = sorted(one.keys() ^ several.keys())
    if odd:
        return f"step {one['step']:.0f}: {', '.join(odd)} is not logged by both"
    for key, x in one.items():
        if key not in DEPENDS and not abs(several[key] - x) <= _most(key, abs(x)):
            where = f"step {one['step']:.0f}: {key}"
            return f"{where} is {several[key]:.6g} on {processes} processes, {x:.6g} on one"
    return ""


def _most(key: str, size: float) -> float:
    """The largest difference that is rounding."""
    if key == "loss":
        return LOSS * max(1.0, size)
    return OTHER * (size if key.startswith("grad_norm") else max(SMALL, size))


def _rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
