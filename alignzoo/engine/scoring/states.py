"""The pass that leaves hidden states of frozen models in files, for every epoch and other runs.

A folder has them in parts, each under a name that follows from its rows. It is whole when every row
is in a part, so a stop costs the part that was being read, and a damaged part is read again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import torch
from torch import Tensor

from alignzoo.contract.types import Item, TextBatch
from alignzoo.engine.parallel.exchange import ALONE, Crew
from alignzoo.engine.scoring.known import Answer
from alignzoo.engine.scoring.packing import Packer, batches_of, by_prompt, shared_prompt
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.engine.scoring.snapshots import PART_SECONDS, write_rows

PART_BYTES = 2**26  # of states that are held before they are written


@torch.no_grad()
def states_of(
    module: ScoringModule, role: str, some: Mapping[bytes, Answer]
) -> dict[bytes, Tensor]:
    """{key: [n, H]} of some rows in one go; which rows share it decides the last bits."""
    device = next(module.parameters()).device
    batch = TextBatch.collate([Item((x.row,)) for x in some.values()], 0).to(device)
    hidden = module.bodies(role, Packer(batch), batch.attention.any(-1), False)
    found = {}
    for (key, x), slots in zip(some.items(), hidden.slots, strict=True):
        found[key] = hidden.states[slots[x.first : len(x.row)]].cpu()
    return found


def read_states(
    module: ScoringModule,
    role: str,
    answers: Mapping[bytes, Answer],
    known: Set[bytes],
    size: int,
    folders: Sequence[Path],
    crew: Crew = ALONE,
) -> None:
    """Read what is not known, up to `size` rows at once, into the first folder that can be written.

    Which rows share a pass does not depend on the crew, whose ranks take turns and write what is
    theirs. Raises OSError where the disk refuses every folder.
    """
    cut = _batches(module, role, answers, size)
    missing = crew.from_main(lambda: [keys for keys in cut if not known >= {*keys}])
    part: dict[bytes, Tensor] = {}
    started = time.monotonic()
    for keys in missing[crew.rank :: crew.size]:
        part |= states_of(module, role, {key: answers[key] for key in keys})
        full = sum(x.nbytes for x in part.values()) >= PART_BYTES
        if full or time.monotonic() - started >= PART_SECONDS:
            _write_part(part, folders)
            part, started = {}, time.monotonic()
    if part:
        _write_part(part, folders)
    crew.gathered(None)  # nobody reads what another has yet to write


def _batches(
    module: ScoringModule, role: str, answers: Mapping[bytes, Answer], size: int
) -> list[list[bytes]]:
    """Keys of the rows that go together, the longest first."""
    own = [shared_prompt(x.row, n) for n, x in enumerate(answers.values())]
    prompts = by_prompt(own, lambda: module.bodies.any_shared({role}))
    keys, lengths = list(answers), [len(x.row) for x in answers.values()]
    return [[keys[n] for n in numbers] for numbers in batches_of(lengths, prompts, size)]


def _write_part(part: Mapping[bytes, Tensor], folders: Sequence[Path]) -> None:
    name = hashlib.blake2b(b"".join(part), digest_size=16).hexdigest()
    write_rows(part, [folder / f"{name}.safetensors" for folder in folders])
