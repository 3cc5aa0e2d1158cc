"""Snapshot signals: read without gradient at the start of a buffer; frozen ones once, on disk.

The disk cache is keyed by content: the models' bytes, the signal's key, and the set of sequences.
DPO and reverse DPO hold the same sequences in another order, so they share one reference pass.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignzoo.contract.errors import PluginError, TrainingError
from alignzoo.contract.types import Batch, Item, Signal, TextBatch, Tokens
from alignzoo.engine.scoring.scorer import ScoringModule


def is_cacheable(signal: Signal, trainable: frozenset[str]) -> bool:
    """A known computation on frozen models only, at the default positions."""
    frozen = not trainable.intersection(signal.roles)
    return signal.key is not None and frozen and signal.positions is None


@torch.no_grad()
def score_buffer(
    module: ScoringModule, batch: Batch, signals: Mapping[str, Signal], size: int
) -> dict[str, Tensor]:
    """{row name: [B, S]} of a whole buffer (on CPU), `size` rows per forward, sorted by length."""
    if not signals:
        return {}
    rows = batch_rows(batch)
    device = next(module.parameters()).device
    module.eval()
    found: dict[str, Tensor] = {}
    for at in torch.argsort(rows.attention.sum(-1), descending=True, stable=True).split(size):
        part = rows.take(at)
        for name, x in module(part.to(device), signals).items():
            whole = found.setdefault(name, x.new_zeros(batch.ids.shape, device="cpu"))
            whole[at, : x.shape[1]] = x.cpu()
    module.set_modes()
    return found


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
    """16 bytes that identify a sequence and where its response starts."""
    text = f"{len(row.prompt)}:{','.join(map(str, row.prompt + row.response))}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def cache_name(
    signal: Signal, digests: Mapping[str, str], items: Sequence[Item], scoring: str = ""
) -> str:
    """Content hash of (models, computation, set of sequences, how and by which code scored)."""
    digest = hashlib.sha256(f"{signal.key}/3/{scoring}".encode())
    for role in signal.roles:
        digest.update(digests[role].encode())
    for row in sorted({row_hash(row) for item in items for row in item.rows}):
        digest.update(row)
    return digest.hexdigest()


def load_stored(path: Path) -> Stored:
    """Read a cache file."""
    data = load_file(path)
    parts = data["values"].split(data["lengths"].tolist())
    keys = [bytes(row.tolist()) for row in data["hashes"]]
    return Stored(dict(zip(keys, parts, strict=True)))


def compute_stored(
    module: ScoringModule, name: str, signal: Signal, items: Sequence[Item], size: int, path: Path
) -> Stored:
    """One pass over every sequence, longest first, and a file for the next run."""
    rows = {row_hash(row): row for item in items for row in item.rows}
    ordered = sorted(rows.items(), key=lambda pair: -len(pair[1]))
    found: dict[bytes, Tensor] = {}
    for start in range(0, len(ordered), size):
        some = ordered[start : start + size]
        batch = TextBatch.collate([Item((row,)) for _, row in some], 0)
        scored = score_buffer(module, batch, {name: signal}, size)
        if name not in scored:
            raise PluginError(f"signal '{name}': a signal with several rows cannot have a `key`")
        grid = scored[name]
        found |= {key: grid[i, : len(row)].clone() for i, (key, row) in enumerate(some)}
    _write(found, path)
    return Stored(found)


def _write(found: Mapping[bytes, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file(
        {
            "values": torch.cat(list(found.values())),
            "lengths": torch.tensor([len(x) for x in found.values()]),
            "hashes": torch.tensor([list(key) for key in found], dtype=torch.uint8),
        },
        part,
    )
    part.replace(path)
