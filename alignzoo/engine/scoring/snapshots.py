"""Snapshot signals: read without gradient at the start of a buffer; frozen ones once, on disk.

The disk cache is keyed by content: the models' bytes, the signal's key, and the set of sequences.
DPO and reverse DPO hold the same sequences in another order, so they share one reference pass.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from alignzoo.contract.errors import PluginError, TrainingError
from alignzoo.contract.types import Batch, Item, Signal, TextBatch, Tokens
from alignzoo.engine.models.tensors import DamagedFile, read_tensors, write_tensors
from alignzoo.engine.scoring.scorer import ScoringModule

PART_SECONDS = 30.0  # of an interrupted pass that are scored again


def is_cacheable(signal: Signal, trainable: frozenset[str]) -> bool:
    """A known computation on frozen models only, at the default positions."""
    frozen = not trainable.intersection(signal.roles)
    return signal.key is not None and frozen and signal.positions is None


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
    """{row name: [B, S]} of a whole buffer (on CPU), `size` rows per forward, sorted by length.

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
    order = torch.argsort(rows.attention.sum(-1), descending=True, stable=True)
    parts = list(order.split(size))
    parts += parts[-1:] * (forwards(len(parts)) - len(parts))
    for at in parts:
        part = rows.take(at)
        placed = {name: _placed(s, masks.get(name), at) for name, s in signals.items()}
        for name, x in module(part.to(device), placed).items():
            whole = found.setdefault(name, x.new_zeros(batch.ids.shape, device="cpu"))
            whole[at, : x.shape[1]] = x.cpu()
    module.set_modes()
    return found


def _placed(signal: Signal, mask: Tensor | None, at: Tensor) -> Signal:
    """The signal on some rows; its positions were asked of the batch that the method declares."""
    if mask is None:
        return signal

    def rows(part: Batch) -> Tensor:
        return mask[at, : part.ids.shape[1]].to(part.ids.device)

    return replace(signal, positions=rows)


def batch_rows(batch: Batch) -> TextBatch:
    """The rows of any batch as single sequences."""
    return TextBatch(batch.ids, batch.attention, batch.response)


@dataclass(frozen=True)
class Stored:
    """Per-token values of many sequences, found by content."""

    values: Mapping[bytes, Tensor]  # row hash -> [S_row]

    def fill(self, items: Sequence[Item], batch: Batch) -> Tensor:
        """[B, S] for a collated batch of the same items; a missing row is an error, never 0."""
        rows = [item.rows[k] for k in range(batch.rows_per_item) for item in items]
        grid = torch.full(batch.ids.shape, float("nan"))
        for b, row in enumerate(rows):
            known = self.values.get(row_hash(row))
            if known is None:
                raise TrainingError("a cached snapshot lacks a sequence; delete the cache folder")
            grid[b] = 0.0
            grid[b, : len(known)] = known
        return grid


def row_hash(row: Tokens) -> bytes:
    """16 bytes that identify a sequence, where its response starts and what of it is learnt."""
    text = f"{len(row.prompt)}:{','.join(map(str, row.prompt + row.response))}"
    if row.learnt is not None:
        text += f":{','.join(str(int(learnt)) for learnt in row.learnt)}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def cache_name(
    signal: Signal, digests: Mapping[str, str], items: Sequence[Item], scoring: str = ""
) -> str:
    """Content hash of (models, computation, set of sequences, how and by which code scored)."""
    digest = hashlib.sha256(f"{signal.key}/4/{scoring}".encode())
    for role in signal.roles:
        digest.update(digests[role].encode())
    for row in sorted({row_hash(row) for item in items for row in item.rows}):
        digest.update(row)
    return digest.hexdigest()


def load_stored(path: Path) -> Stored:
    """Read a cache file; raises DamagedFile when it does not hold what was written."""
    return Stored(_rows(path))


def compute_stored(
    module: ScoringModule,
    name: str,
    signal: Signal,
    items: Sequence[Item],
    size: int,
    paths: Sequence[Path],
) -> Path:
    """One pass over every sequence, longest first; the file, the first that could be written.

    What is scored is kept in parts beside it, so that a stop costs half a minute. Raises OSError
    where the disk refuses every path.
    """
    rows = {row_hash(row): row for item in items for row in item.rows}
    ordered = sorted(rows.items(), key=lambda pair: -len(pair[1]))
    parts = [path.with_suffix(".parts") for path in paths]
    found = {key: x for folder in parts for key, x in _kept(folder).items()}
    part: dict[bytes, Tensor] = {}
    started = time.monotonic()
    for start in range(0, len(ordered), size):
        some = ordered[start : start + size]
        if all(key in found for key, _ in some):
            continue
        part |= _scored(module, name, signal, some, size)
        if time.monotonic() - started >= PART_SECONDS:
            _write(part, [folder / f"{start:09d}.safetensors" for folder in parts])
            found, part, started = found | part, {}, time.monotonic()
    found |= part
    path = _write({key: found[key] for key, _ in ordered}, paths)
    for folder in parts:
        shutil.rmtree(folder, ignore_errors=True)
    return path


def _scored(
    module: ScoringModule,
    name: str,
    signal: Signal,
    some: Sequence[tuple[bytes, Tokens]],
    size: int,
) -> dict[bytes, Tensor]:
    """The values of some rows in one forward pass; which rows share it decides the last bits."""
    batch = TextBatch.collate([Item((row,)) for _, row in some], 0)
    scored = score_buffer(module, batch, {name: signal}, size)
    if name not in scored:
        raise PluginError(f"signal '{name}': a signal with several rows cannot have a `key`")
    return {key: scored[name][i, : len(row)].clone() for i, (key, row) in enumerate(some)}


def _kept(parts: Path) -> dict[bytes, Tensor]:
    """What an interrupted pass has scored; a damaged part is scored again."""
    found: dict[bytes, Tensor] = {}
    for part in sorted(parts.glob("*.safetensors")):
        with suppress(DamagedFile):
            found |= _rows(part)
    return found


def _rows(path: Path) -> dict[bytes, Tensor]:
    data = read_tensors(path)[0]
    values = data["values"].split(data["lengths"].tolist())
    keys = [bytes(row.tolist()) for row in data["hashes"]]
    return dict(zip(keys, values, strict=True))


def _write(found: Mapping[bytes, Tensor], paths: Sequence[Path]) -> Path:
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
