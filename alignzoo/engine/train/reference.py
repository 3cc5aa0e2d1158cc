"""The reference pass: what frozen models say of the data, scored once, shared by the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from alignzoo.contract.errors import TrainingError
from alignzoo.contract.types import Item, LabelledBatch, Signal
from alignzoo.engine.models.tensors import DamagedFile
from alignzoo.engine.parallel.exchange import as_one, everyone
from alignzoo.engine.scoring import snapshots
from alignzoo.engine.scoring.scorer import SCORERS, ScoringModule, Special
from alignzoo.engine.train.job import Job


def stored_snapshots(job: Job) -> dict[str, snapshots.Stored]:
    """Load or compute the cacheable snapshots of training and validation data, on all ranks."""
    sets = _sets(job)
    return {
        name: as_one(partial(_stored, job, name, signal, sets))
        for name, signal in job.scored[0].items()
    }


def _sets(job: Job) -> list[Sequence[Item]]:
    """The sequences that are scored and kept together: all, or of labelled answers the answers
    and their mismatched ones, because methods on the same pairs hold the first.

    Which sequences share a pass decides the last bits, so what other runs kept of some of them
    may not; whole sets are the same in whatever order they were made.
    """
    items = [*job.items, *(job.validation.items if job.validation else ())]
    if not issubclass(job.kind, LabelledBatch):
        return [items]
    return [[snapshots.single(item, k) for item in items] for k in range(job.kind.rows_per_item)]


def _stored(
    job: Job, name: str, signal: Signal, sets: Sequence[Sequence[Item]]
) -> snapshots.Stored:
    views = snapshots.views_of(signal, job.special.sees)
    paths = [_paths(job, signal, items) for items in sets]
    missing = [n for n, some in enumerate(paths) if _lost(job, some, views)]
    if missing:
        _compute(job, name, signal, [(sets[n], paths[n]) for n in missing])
    values: dict[bytes, Tensor] = {}
    for some in paths:
        whole = _intact(some, views, job.say)
        if whole is None:
            raise TrainingError(f"{some[0]}: another process took it away; run this again")
        values |= whole.values
    return snapshots.Stored(values, views)


def _paths(job: Job, signal: Signal, items: Sequence[Item]) -> Sequence[Path]:
    """Where a set is kept; the second is for a cache that cannot be written, for the stage's own
    folder always can.
    """
    name = snapshots.cache_name(signal, job.digests, items, job.how(signal), job.special.sees)
    file = f"{name}.safetensors"
    return job.cache / file, job.folder / "state" / "snapshots" / file


def _lost(job: Job, paths: Sequence[Path], views: tuple[str, ...]) -> bool:
    """Whether rank 0 finds no whole file."""
    return everyone().from_main(lambda: _intact(paths, views, job.say) is None)


def _compute(
    job: Job,
    name: str,
    signal: Signal,
    sets: Sequence[tuple[Sequence[Item], Sequence[Path]]],
) -> None:
    """Score every sequence once, all ranks in turns, into the first place that can be written."""
    models = job.models(signal.roles)
    scorer = SCORERS[job.optim.scorer](job.optim.chunk(job.ranks.device.type))
    sees = Special(sees=job.special.sees)
    module = ScoringModule(models, frozenset(), scorer, sees).to(job.ranks.device)
    size = job.optim.micro_batch_size * 2
    for items, paths in sets:
        with job.ranks.autocast():  # the arithmetic of the policy
            path = snapshots.compute_stored(module, name, signal, items, size, paths, everyone())
        if path != paths[0]:
            job.say(f"{job.cache} cannot be written: this stage keeps its reference pass to itself")


def _intact(
    paths: Sequence[Path], views: tuple[str, ...], say: Callable[[str], None]
) -> snapshots.Stored | None:
    """The first of these files that holds what was written; `say` is told of another."""
    for path in paths:
        try:
            if path.exists():
                return snapshots.load_stored(path, views)
        except OSError:  # a cache that cannot be read: not there
            continue
        except DamagedFile as damage:
            say(f"{damage}; it is computed again")
    return None
