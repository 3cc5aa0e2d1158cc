"""Ranks that train together read the same data, though each reads it by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from alignzoo.contract.errors import DataError
from alignzoo.engine.scoring.snapshots import row_hash
from alignzoo.engine.train.job import Job


def check_alike(job: Job) -> None:
    """Raise DataError, on all ranks, unless all of them hold the same items and prompts.

    Each takes its share of a batch by number. Where the numbers stand for other items, some would
    be learnt twice and others never, and no metric would show it. Collective.
    """
    if job.ranks.size == 1:
        return
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(job):
        digest.update(part)
    found = job.ranks.union([digest.hexdigest()])
    if len(found) > 1:
        raise DataError(
            f"the {job.ranks.size} processes read other data, {len(found)} kinds of it, from one "
            "recipe; a plug-in's dataset must follow from its seed alone (a set of texts has "
            "another order in every process), and a file must be the same on all machines"
        )


def _parts(job: Job) -> Iterator[bytes]:
    for item in (*job.items, *(job.validation.items if job.validation else ())):
        for rows in (item.rows, *item.views.values()):
            yield from map(row_hash, rows)
        yield repr(sorted(item.values.items())).encode()
    for prompt in job.rollout.prompts if job.rollout else ():
        yield repr(prompt).encode()
