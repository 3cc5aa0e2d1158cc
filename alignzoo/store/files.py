"""Bytes on disk: digests, files that are replaced at once, and the cache's place."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any


def digest_of_value(value: object) -> str:
    """Sha256 (hex) of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def digest_of(path: Path) -> str:
    """Sha256 (hex) of a file's bytes, or of the names and bytes of all files in a folder."""
    if path.is_file():
        status = path.stat()
        return _file_digest(str(path.resolve()), status.st_size, status.st_mtime_ns)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest_of_value([[f.relative_to(path).as_posix(), digest_of(f)] for f in files])


@functools.cache
def _file_digest(path: str, size: int, mtime_ns: int) -> str:
    """Size and time are here for the memory only: a file that changed is read again."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old or the new text, never a part.

    Half a character (a lone surrogate), which UTF-8 has no form for, is written as its
    escape, which in JSON is the same text.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with draft.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Bring everything in a folder to the disk."""
    for path in (folder, *folder.rglob("*")):
        sync(path)


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file at once."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or {} when the file is missing or not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def cache_folder() -> Path:
    """`$ALIGNZOO_CACHE`, by default ~/.cache/alignzoo."""
    return Path(os.environ.get("ALIGNZOO_CACHE") or Path.home() / ".cache" / "alignzoo")


def sweep(folder: Path) -> None:
    """Remove the drafts that a killed process left in a run; the caller holds its lock."""
    for draft in list(folder.rglob(".*.tmp")):
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)
