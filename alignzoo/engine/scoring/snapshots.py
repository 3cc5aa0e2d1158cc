"""Snapshot signals: read without gradient at the start of a buffer; frozen ones once, on disk.

The disk cache is keyed by content: the models' bytes, the signal's key, and the set of sequences.
Methods on the same pairs hold the same sequences in some order, so they share one reference pass.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from alignzoo.contract.errors import PluginError
from alignzoo.contract.types import Batch, Item, Signal, TextBatch, Tokens
from alignzoo.engine.models.tensors import DamagedFile, read_tensors, write_tensors
from alignzoo.engine.parallel.exchange import ALONE, Crew
from alignzoo.engine.scoring.packing import Shape, batches_of, by_prompt, shared_prompt
from alignzoo.engine.scoring.scorer import ScoringModule

PART_SECONDS = 30.0  # of an interrupted pass that are scored again
Keyed: TypeAlias = Sequence[tuple[bytes, Item]]  # rows by their keys


def alone(wanted: int) -> int:
    """As many passes as this process needs: each rank has the models to itself."""
    return wanted


@torch.no_grad()
def score_buffer(
    module: ScoringModule,
    batch: Batch,
    signals: Mapping[str, Signal],
    size: int,
    forwards: Callable[[int], int] = alone,
) -> dict[str, Tensor]:
    """{row name: [B, S]} of a whole buffer (on CPU), up to `size` rows per forward, the longest
    first, and those of one prompt together where that spares work.

    `forwards` says how many passes to make where so many are needed: models that lie over several
    ranks need as many on each, and the last one is made again.
    """
    if not signals:
        return {}
    rows = batch_rows(batch)
    device = next(module.parameters()).device
    module.eval()
    found: dict[str, Tensor] = {}
    masks = {name: s.positions(batch) for name, s in signals.items() if s.positions is not None}
    prompts = by_prompt(Shape.of(rows).prompts, _sharing(module, signals))
    parts = [torch.tensor(at) for at in batches_of(rows.lengths.tolist(), prompts, size)]
    parts += parts[-1:] * (forwards(len(parts)) - len(parts))
    for at in parts:
        part = rows.take(at)
        placed = {name: _placed(s, masks.get(name), at) for name, s in signals.items()}
        for name, x in module(part.to(device), placed).items():
            whole = found.setdefault(name, x.new_zeros(batch.ids.shape, device="cpu"))
            whole[at, : x.shape[1]] = x.cpu()
    module.set_modes()
    return found


def _sharing(module: ScoringModule, signals: Mapping[str, Signal]) -> Callable[[], bool]:
    """Says whether some of the models read can share prompts."""
    return lambda: module.bodies.any_shared({r for s in signals.values() for r in s.roles})


def _placed(signal: Signal, mask: Tensor | None, at: Tensor) -> Signal:
    """The signal on some rows; its positions were asked of the batch that the method declares."""
    if mask is None:
        return signal

    def rows(part: Batch) -> Tensor:
        return mask[at, : part.ids.shape[1]].to(part.ids.device)

    return replace(signal, positions=rows)


def batch_rows(batch: Batch) -> TextBatch:
    """The rows of any batch as single sequences."""
    return TextBatch(batch.ids, batch.attention, batch.response, views=batch.views)


@dataclass(frozen=True)
class Stored:
    """Per-token values of many sequences, found by content."""

    values: Mapping[bytes, Tensor]  # key of a row -> [S_row]
    views: tuple[str, ...] = ()  # that were read


def row_hash(row: Tokens) -> bytes:
    """16 bytes that identify a sequence, where its response starts and what of it is learnt."""
    text = f"{len(row.prompt)}:{','.join(map(str, row.prompt + row.response))}"
    if row.learnt is not None:
        text += f":{','.join(str(int(learnt)) for learnt in row.learnt)}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def single(item: Item, k: int) -> Item:
    """A row with its views."""
    return Item((item.rows[k],), views={name: (rows[k],) for name, rows in item.views.items()})


def row_key(row: Item, views: Sequence[str]) -> bytes:
    """16 bytes that identify a row, and those views of it."""
    if not views:
        return row_hash(row.rows[0])
    parts = [row_hash(tokens) for tokens in (row.rows[0], *(row.views[v][0] for v in views))]
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def keyed_rows(items: Sequence[Item], views: Sequence[str]) -> dict[bytes, Item]:
    """Every row once, by its key."""
    rows = (single(item, k) for item in items for k in range(len(item.rows)))
    return {row_key(row, views): row for row in rows}


def views_of(signal: Signal, sees: Mapping[str, str]) -> tuple[str, ...]:
    """The views that a signal is read from."""
    return tuple(sorted({sees[role] for role in signal.roles if role in sees}))


def cache_name(
    signal: Signal,
    digests: Mapping[str, str],
    items: Sequence[Item],
    scoring: str = "",
    sees: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Content hash of (models and what each reads, computation, set of sequences, how and by which
    code scored).
    """
    digest = hashlib.sha256(f"{signal.key}/5/{scoring}".encode())
    views = views_of(signal, sees)
    for role in signal.roles:
        digest.update(digests[role].encode())
        if role in sees:
            digest.update(f" behind view {views.index(sees[role])}".encode())
    for key in sorted(keyed_rows(items, views)):
        digest.update(key)
    return digest.hexdigest()


def load_stored(path: Path, views: tuple[str, ...] = ()) -> Stored:
    """Read a cache file; raises DamagedFile when it does not hold what was written."""
    return Stored(_rows(path), views)


def compute_stored(
    module: ScoringModule,
    name: str,
    signal: Signal,
    items: Sequence[Item],
    size: int,
    paths: Sequence[Path],
    crew: Crew = ALONE,
) -> Path:
    """One pass over every sequence, in the order of `score_buffer`; the file, the first that could
    be written.

    Which sequences share a forward pass does not depend on the crew: its ranks take turns at the
    batches, and rank 0 keeps what is scored in parts beside the file, so that a stop costs half a
    minute. Raises OSError where the disk refuses every path.
    """
    rows = keyed_rows(items, views_of(signal, module.special.sees))
    ordered = list(rows.items())
    own = [shared_prompt(row.rows[0], n) for n, (_, row) in enumerate(ordered)]
    prompts = by_prompt(own, _sharing(module, {name: signal}))
    cut = batches_of([len(row) for row in rows.values()], prompts, size)
    batches = [[ordered[n] for n in numbers] for numbers in cut]
    parts = [path.with_suffix(".parts") for path in paths]
    kept = [rows_in(folder) for folder in parts] if crew.is_main else []
    found = {key: x for some in kept for key, x in some.items()}
    known = crew.from_main(lambda: {n for n, b in enumerate(batches) if _all_in(found, b)})
    missing = {n: batch for n, batch in enumerate(batches) if n not in known}
    part: dict[bytes, Tensor] = {}
    started = time.monotonic()
    for number, scored in _turns(module, {name: signal}, missing, crew):
        part |= scored if crew.is_main else {}
        if part and time.monotonic() - started >= PART_SECONDS:
            write_rows(part, [folder / f"{number:09d}.safetensors" for folder in parts])
            found, part, started = found | part, {}, time.monotonic()
    found |= part
    path = crew.from_main(lambda: write_rows({key: found[key] for key, _ in ordered}, paths))
    for folder in parts if crew.is_main else ():
        shutil.rmtree(folder, ignore_errors=True)
    return path


def _all_in(found: Mapping[bytes, Tensor], batch: Keyed) -> bool:
    return all(key in found for key, _ in batch)


def _turns(
    module: ScoringModule, named: Mapping[str, Signal], batches: Mapping[int, Keyed], crew: Crew
) -> Iterator[tuple[int, dict[bytes, Tensor]]]:
    """A batch for every rank at a time: the last number, and what all of them scored."""
    numbers = list(batches)
    for start in range(0, len(numbers), crew.size):
        turn = numbers[start : start + crew.size]
        mine = [_scored(module, named, batches[n]) for n in turn[crew.rank : crew.rank + 1]]
        yield turn[-1], {k: x for every in crew.gathered(mine) for s in every for k, x in s.items()}


def _scored(module: ScoringModule, named: Mapping[str, Signal], some: Keyed) -> dict[bytes, Tensor]:
    """The values of some rows in one forward pass; which rows share it decides the last bits."""
    (name,) = named
    batch = TextBatch.collate([row for _, row in some], 0)
    scored = score_buffer(module, batch, named, len(some))
    if name not in scored:
        raise PluginError(f"signal '{name}': a signal with several rows cannot have a `key`")
    rows = [(key, row.rows[0]) for key, row in some]
    return {key: scored[name][i, : len(row)].clone() for i, (key, row) in enumerate(rows)}


def rows_in(parts: Path) -> dict[bytes, Tensor]:
    """What stands in the files of a folder, mapped into memory; not what cannot be read."""
    found: dict[bytes, Tensor] = {}
    with suppress(OSError):
        for part in sorted(parts.glob("*.safetensors")):
            with suppress(DamagedFile):
                found |= _rows(part)
    return found


def _rows(path: Path) -> dict[bytes, Tensor]:
    data = read_tensors(path)[0]
    values = data["values"].split(data["lengths"].tolist())
    keys = [bytes(row.tolist()) for row in data["hashes"]]
    return dict(zip(keys, values, strict=True))


def write_rows(found: Mapping[bytes, Tensor], paths: Sequence[Path]) -> Path:
    """Write to the first path that can be written, and say which."""
    tensors = {
        "values": torch.cat(list(found.values())),
        "lengths": torch.tensor([len(x) for x in found.values()]),
        "hashes": torch.tensor([list(key) for key in found], dtype=torch.uint8),
    }
    for path in paths[:-1]:
        with suppress(OSError):
            write_tensors(path, tensors)
            return path
    write_tensors(paths[-1], tensors)
    return paths[-1]
