"""Hidden states of frozen models, kept instead of being made anew in every epoch."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alignzoo.contract.errors import TrainingError, sized
from alignzoo.contract.frozen import reread
from alignzoo.contract.types import Item
from alignzoo.engine.parallel.exchange import as_one, everyone
from alignzoo.engine.scoring.known import Answer, States, answers_of
from alignzoo.engine.scoring.rows import dense
from alignzoo.engine.scoring.scorer import ScoringModule, Special, mask_of
from alignzoo.engine.scoring.snapshots import rows_in
from alignzoo.engine.scoring.states import read_states, states_of
from alignzoo.engine.train.job import Job


@dataclass(frozen=True)
class Wanted:
    """What is to be kept of a role."""

    role: str
    answers: Mapping[bytes, Answer]
    folders: Sequence[Path]  # the second is for a cache that cannot be written

    def lacking(self, found: States) -> int:
        """Positions whose state is not there."""
        return sum(x.states for key, x in self.answers.items() if key not in found)

    def found(self) -> States:
        """What lies in the folders, mapped into memory."""
        return {key: x for folder in self.folders for key, x in rows_in(folder).items()}


def known_states(job: Job) -> dict[str, States]:
    """{role: its hidden states} of given data, held-out data among them, where the recipe keeps
    them: those in the cache, or made here, on all ranks.

    Raises TrainingError before anything is read when they do not fit on the disk, PluginError when
    a signal names positions of prompts.
    """
    return as_one(partial(_known, job)) if job.optim.cache_teacher else {}


def _known(job: Job) -> dict[str, States]:
    items = [*job.items, *(job.validation.items if job.validation else ())]
    every = [_wanted(job, role, items) for role in reread(job.algorithm)]
    _check_positions(job, items, [one.role for one in every])
    found = {one.role: one.found() for one in every}
    names = everyone().from_main(lambda: [one.role for one in _lacking(every, found)])
    if not names:
        size = sum(x.nbytes for states in found.values() for x in states.values())
        job.say(f"hidden states of {_listed(every)} are known: {sized(size)} in {job.cache}")
        return found
    missing = [one for one in every if one.role in names]
    _make(job, missing, found)
    found |= {one.role: one.found() for one in missing}
    for one in _lacking(every, found):
        raise TrainingError(f"{one.folders[0]}: another process took it away; run this again")
    return found


def _lacking(every: Sequence[Wanted], found: Mapping[str, States]) -> list[Wanted]:
    """What of which some row is not there."""
    return [one for one in every if not found[one.role].keys() >= one.answers.keys()]


def _wanted(job: Job, role: str, items: Sequence[Item]) -> Wanted:
    """Known again by the model, the rows, and what else decides the last bits."""
    answers = answers_of(items, job.special.sees.get(role))
    how = f"{job.scoring} {job.ranks.device.type} {job.optim.micro_batch_size}"
    digest = hashlib.sha256(f"states/1/{how} {job.digests[role]}".encode())
    digest.update(b"".join(sorted(answers)))
    name = f"{digest.hexdigest()}.states"
    return Wanted(role, answers, (job.cache / name, job.folder / "state" / "snapshots" / name))


def _check_positions(job: Job, items: Sequence[Item], roles: Sequence[str]) -> None:
    """Signals that name positions of their own are asked before anything is spent."""
    special = Special(known={role: {} for role in roles})
    signals = {**job.algorithm.signals(), **job.scored[1]}
    own = {name: s for name, s in signals.items() if s.positions and {*roles} & {*s.roles}}
    for i in range(0, len(items), job.optim.batch_size) if own else ():
        batch = job.kind.collate(items[i : i + job.optim.batch_size], job.pad_id)
        for name, signal in own.items():
            mask_of(name, signal, batch, special)


def _make(job: Job, lacking: Sequence[Wanted], found: Mapping[str, States]) -> None:
    """One pass of every model, once it is known that there is room."""
    models = job.models([one.role for one in lacking])
    module = ScoringModule(models, frozenset(), dense).to(job.ranks.device)
    with job.ranks.autocast():  # the arithmetic of the policy
        needed = {
            one.folders[0]: one.lacking(found[one.role]) * _width(module, one) for one in lacking
        }
        everyone().from_main(partial(_check_room, job, lacking, sum(needed.values())))
        for one in lacking:
            size, there = job.optim.micro_batch_size * 2, found[one.role].keys()
            read_states(module, one.role, one.answers, there, size, one.folders, everyone())
    if not all(folder.exists() for folder in needed):
        job.say(f"{job.cache} cannot be written: this stage keeps its hidden states to itself")


def _width(module: ScoringModule, one: Wanted) -> int:
    """Bytes of a state, by the shortest row."""
    key = min(one.answers, key=lambda key: len(one.answers[key].row))
    (states,) = states_of(module, one.role, {key: one.answers[key]}).values()
    return states.shape[-1] * states.element_size()


def _check_room(job: Job, lacking: Sequence[Wanted], need: int) -> None:
    """Say the size, and stop where the disk does not have it."""
    place = job.cache
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if need > free:
        raise TrainingError(
            f"train.cache_teacher: hidden states of {_listed(lacking)} take {sized(need)}, and "
            f"{place} has {sized(free)} free; name a larger disk by ALIGNZOO_CACHE, or take it out"
        )
    job.say(
        f"hidden states of {_listed(lacking)} are read and kept in {job.cache}: {sized(need)}, "
        f"{sized(free)} are free"
    )


def _listed(some: Sequence[Wanted]) -> str:
    return " and ".join(f"'{one.role}'" for one in some)
