"""The reference pass: what frozen models say of the data, scored once, shared by the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from alignzoo.contract.errors import TrainingError
from alignzoo.contract.types import Item, Signal
from alignzoo.engine.models.tensors import DamagedFile
from alignzoo.engine.parallel.exchange import as_one, everyone
from alignzoo.engine.scoring import snapshots
from alignzoo.engine.scoring.scorer import SCORERS, ScoringModule, Special
from alignzoo.engine.train.job import Job


def stored_snapshots(job: Job) -> dict[str, snapshots.Stored]:
    """Load or compute the cacheable snapshots of training and validation data, on all ranks."""
    items = [*job.items, *(job.validation.items if job.validation else ())]
    found = {}
    for name, signal in job.scored[0].items():
        sees = job.special.sees
        file = f"{snapshots.cache_name(signal, job.digests, items, job.how, sees)}.safetensors"
        # The second is for a cache that cannot be written: the stage's own folder always can.
        paths = [job.cache / file, job.folder / "state" / "snapshots" / file]
        found[name] = as_one(partial(_stored, job, name, signal, items, paths))
    return found


def _stored(
    job: Job, name: str, signal: Signal, items: Sequence[Item], paths: Sequence[Path]
) -> snapshots.Stored:
    views = snapshots.views_of(signal, job.special.sees)
    if everyone().from_main(lambda: _intact(paths, views, job.say) is None):
        _compute(job, name, signal, items, paths)
    whole = _intact(paths, views, job.say)
    if whole is None:
        raise TrainingError(f"{paths[0]}: another process took it away; run this again")
    return whole


def _compute(
    job: Job, name: str, signal: Signal, items: Sequence[Item], paths: Sequence[Path]
) -> None:
    """Score every sequence once, all ranks in turns, into the first place that can be written."""
    models = job.models(signal.roles)
    scorer = SCORERS[job.optim.scorer](job.optim.chunk_mb * 2**20)
    sees = Special(sees=job.special.sees)
    module = ScoringModule(models, frozenset(), scorer, sees).to(job.ranks.device)
    size = job.optim.micro_batch_size * 2
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
        except DamagedFile as damage:
            say(f"{damage}; it is computed again")
    return None
