"""Files of named tensors that know whether they are whole.

A safetensors file with a digest of every name, type, shape, value and note in its metadata. It is
written beside its place, brought to the disk, and only then takes its name; a reader that finds
another digest says so instead of going on with other numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

DIGEST = "digest"


class DamagedFile(Exception):
    """A file is not what was written; the message names it."""


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> None:
    """Write whole tensors, on any device, and some text, at once.

    Raises OSError where the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {name: x.detach().contiguous().cpu() for name, x in tensors.items()}
    notes = dict(notes or {})
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(own, draft, notes | {DIGEST: _digest(own, notes)})
        open_to_readers(draft)
        sync(draft)
        draft.replace(path)
    except SafetensorError as error:  # what the library makes of a full disk
        raise OSError(f"{path}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


def open_to_readers(*files: Path) -> None:
    """Give files the mode of any new file: safetensors leaves its own to their owner alone, and
    runs and caches may be shared.
    """
    for file in files:
        twin = file.with_name(f".{file.name}.mode.{os.getpid()}.tmp")
        with suppress(OSError):  # a disk may know no modes
            twin.touch()
            file.chmod(twin.stat().st_mode)
            twin.unlink()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, notes) of a file; raises DamagedFile when they are not what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedFile(f"{path} cannot be read: {error}") from error
    if notes.pop(DIGEST, None) != _digest(tensors, notes):
        raise DamagedFile(f"{path} does not hold what was written")
    return tensors, notes


def _digest(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    """Sha256 (hex) over notes and names, types, shapes and bytes of tensors, in any order."""
    digest = hashlib.sha256(json.dumps(dict(notes), sort_keys=True).encode())
    for name in sorted(tensors):
        x = tensors[name]
        digest.update(f"{name}\0{x.dtype}\0{tuple(x.shape)}\0".encode())
        digest.update(x.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
