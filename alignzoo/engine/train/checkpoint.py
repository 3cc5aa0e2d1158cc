"""What a stage needs to go on after an interruption: weights, optimiser, state, cursor.

Every rank takes part in reading and writing, because no rank may have a whole model; rank 0 writes.
Data order and sampling noise are functions of (seed, step), so there is no random state to keep: a
resumed run equals an uninterrupted one bit for bit. Every tensor is whole and has a name made of
its role and its parameter, so no file knows on how many processes it was written.

    state/step-00000012/weights.safetensors     role/parameter
                        optimizer.safetensors   role/parameter/moment
                        state.safetensors       the algorithm's state; in its notes the cursor and
                                                what `metrics.jsonl` held
    state/best-00000008/weights.safetensors     of the best validation so far

The last two checkpoints are kept. One whose files are not what was written is passed over aloud.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from alignzoo.engine.layout.base import Layout
from alignzoo.engine.models.tensors import DamagedFile, read_tensors, sync, write_tensors

KEPT = 2
WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.safetensors"
LOG = "metrics.jsonl"  # beside the folder of checkpoints


@dataclass(frozen=True)
class Cursor:
    """Where training stands."""

    buffer: int = 0  # next buffer
    step: int = 0  # optimiser steps done
    best: float | None = None  # best validation metric so far
    best_step: int = 0
    ahead: bool | None = None  # whether gradients are formed ahead of the loss; None: not decided


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, read and found intact, in memory."""

    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    cursor: Cursor
    log_bytes: int  # of `metrics.jsonl`; what follows was written later


def save_checkpoint(
    folder: Path, layout: Layout, state: Mapping[str, Tensor], cursor: Cursor, more: bool
) -> None:
    """Write `folder/step-N` and then drop older ones; a crash leaves those intact. Collective.

    `more`: training goes on; after the last step nobody needs the optimiser.
    """
    target, part = folder / f"step-{cursor.step:08d}", folder / "part"
    writes = layout.ranks.is_main
    if writes:
        shutil.rmtree(part, ignore_errors=True)
    _write(part / WEIGHTS, layout.changed(), writes)
    _write(part / OPTIMIZER, layout.moments() if more else iter(()), writes)
    if not writes:
        return
    log = folder.with_name(LOG)
    size, digest = _log(log)
    if log.exists():
        sync(log)
    notes = {"cursor": json.dumps(asdict(cursor)), "log": json.dumps([size, digest])}
    write_tensors(part / STATE, state, notes)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    sync(folder)
    _drop_older(folder)


def save_best(folder: Path, layout: Layout, step: int) -> None:
    """Write `folder/best-N`. Collective."""
    _write(best_folder(folder, step) / WEIGHTS, layout.changed(), layout.ranks.is_main)


def _write(path: Path, tensors: Iterator[tuple[str, Tensor]], writes: bool) -> None:
    """Each tensor goes to the CPU before the next one is gathered; ranks that do not write
    keep none.
    """
    found = {name: x.cpu() for name, x in tensors if writes}
    if writes:
        write_tensors(path, found)


def best_folder(folder: Path, step: int) -> Path:
    """Where the weights of the best validation are."""
    return folder / f"best-{step:08d}"


def load_best(folder: Path, layout: Layout, step: int) -> None:
    """Copy the best weights into the models; raises DamagedFile. Collective."""
    _put_weights(layout, read_tensors(best_folder(folder, step) / WEIGHTS)[0])


def places(folder: Path) -> list[Path]:
    """The folders of checkpoints, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def read_checkpoint(place: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """A checkpoint, or None when it is not intact; then `say` is told what is wrong."""
    try:
        return _read(place)
    except DamagedFile as damage:
        say(f"{damage}; the checkpoint {place.name} is not used")
        return None


def restore(found: Checkpoint, layout: Layout) -> tuple[dict[str, Tensor], Cursor]:
    """Copy a checkpoint into models and optimiser; (the algorithm's state, the cursor).

    Collective.
    """
    _put_weights(layout, found.weights)
    layout.load_moments(found.optimizer)
    return dict(found.state), found.cursor


def _put_weights(layout: Layout, tensors: Mapping[str, Tensor]) -> None:
    """Copy saved parameters back in place."""
    for role in (*layout.trained, *layout.scoring.special.moving):
        start = f"{role}/"
        own = {name: x for name, x in tensors.items() if name.startswith(start)}
        layout.load(role, {name.removeprefix(start): x for name, x in own.items()})


def _read(place: Path) -> Checkpoint:
    """Raises DamagedFile when anything that the checkpoint needs is not what was written."""
    state, notes = read_tensors(place / STATE)
    cursor = Cursor(**json.loads(notes["cursor"]))
    size, digest = json.loads(notes["log"])
    log = place.parent.with_name(LOG)
    if _log(log, size) != (size, digest):
        raise DamagedFile(f"{log} does not hold what was written")
    if cursor.best_step:
        read_tensors(best_folder(place.parent, cursor.best_step) / WEIGHTS)
    weights, optimizer = read_tensors(place / WEIGHTS)[0], read_tensors(place / OPTIMIZER)[0]
    return Checkpoint(weights, optimizer, state, cursor, size)


def _log(path: Path, size: int | None = None) -> tuple[int, str]:
    """(bytes, sha256) of a log, or of its first `size` bytes."""
    if not path.exists():
        return 0, hashlib.sha256().hexdigest()
    with path.open("rb") as file:
        text = file.read() if size is None else file.read(size)
    return len(text), hashlib.sha256(text).hexdigest()


def _drop_older(folder: Path) -> None:
    """Keep the last checkpoints and the best weights that they refer to."""
    places = sorted(folder.glob("step-*"))
    for old in places[:-KEPT]:
        shutil.rmtree(old)
    wanted = {best_folder(folder, _best_step(place)) for place in places[-KEPT:]}
    for old in folder.glob("best-*"):
        if old not in wanted:
            shutil.rmtree(old)


def _best_step(place: Path) -> int:
    try:
        return Cursor(**json.loads(read_tensors(place / STATE)[1]["cursor"])).best_step
    except DamagedFile:
        return 0
