"""Finished work on disk: content digests, atomic records, and reuse within and across runs.

A piece of work (a stage, or a benchmark on one model) owns a folder. While the folder is being
filled its `stage.json` says "running"; last of all it is replaced by a record with the identity
of the work and a digest of every output. Identities are indexed in the cache, so that another
run finds the folder; nothing is believed without its digests.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignzoo.errors import AlignzooError

RECORD = "stage.json"
NOT_OUTPUT = frozenset({RECORD, "state", "timing.jsonl"})  # differ between equal runs
State = Literal["new", "running", "other", "damaged", "done"]


@dataclass(frozen=True)
class Identity:
    """What a piece of work depends on: the readable manifest and its hash."""

    manifest: Mapping[str, Any]

    @functools.cached_property
    def digest(self) -> str:
        """Sha256 (hex) of the manifest's canonical JSON."""
        return digest_of_value(self.manifest)


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


def outputs_of(folder: Path) -> dict[str, str]:
    """The digest of everything a piece of work left, by name."""
    kept = [p for p in folder.iterdir() if p.name not in NOT_OUTPUT and p.suffix != ".tmp"]
    return {path.name: digest_of(path) for path in sorted(kept)}


def recorded_output(folder: Path, name: str) -> str | None:
    """The digest that a finished folder's record states for one output."""
    digest = read_json(folder / RECORD).get("outputs", {}).get(name)
    return str(digest) if digest else None


def state_of(folder: Path, identity: Identity) -> State:
    """What a folder holds, seen from the work that wants it."""
    record = read_json(folder / RECORD)
    if not record:
        return "other" if folder.exists() and any(folder.iterdir()) else "new"
    if record.get("identity") != identity.digest:
        return "other"
    if record.get("status") != "done":
        return "running"
    return "done" if record.get("outputs") == outputs_of(folder) else "damaged"


def changed_inputs(folder: Path, identity: Identity) -> list[str]:
    """The parts of the manifest in which the work found in a folder was another one."""
    before = read_json(folder / RECORD).get("manifest", {})
    return [key for key, x in identity.manifest.items() if before and before.get(key) != x]


def resumable(folder: Path, identity: Identity) -> bool:
    """Whether this very work was stopped here after it had kept a checkpoint."""
    return state_of(folder, identity) == "running" and (folder / "state").exists()


def begin(folder: Path, identity: Identity, *, keep: bool) -> None:
    """Take a folder for a piece of work; what lies in it is cleared unless `keep`."""
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, _record(identity, "running"))


def finish(folder: Path, identity: Identity) -> None:
    """State that the work is done; nothing may be written to the folder after this."""
    record = _record(identity, "done") | {"outputs": outputs_of(folder)}
    write_json(folder / RECORD, record)
    publish(folder, identity)


def sweep(folder: Path) -> None:
    """Remove the drafts that a killed process left in a run; the caller holds its lock."""
    for draft in list(folder.rglob(".*.tmp")):
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def _record(identity: Identity, status: str) -> dict[str, Any]:
    return {"status": status, "identity": identity.digest, "manifest": identity.manifest}


def publish(folder: Path, identity: Identity) -> None:
    """Let other runs find a finished folder; a cache that cannot be written is no cache."""
    try:
        write_json(_index(identity), {"folder": str(folder.resolve())})
    except OSError:
        return


def _index(identity: Identity) -> Path:
    return cache_folder() / "stages" / f"{identity.digest}.json"


def find(folder: Path, identity: Identity) -> Path | None:
    """The folder that holds this work, finished and undamaged: here, or in another run."""
    if state_of(folder, identity) == "done":
        return folder
    entry = read_json(_index(identity)).get("folder")
    other = Path(entry) if isinstance(entry, str) else folder
    return other if other != folder and state_of(other, identity) == "done" else None


def adopt(source: Path, folder: Path) -> None:
    """Bring another run's finished folder here, by hard links where the disk allows."""
    draft = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(
        source, draft, copy_function=_link, ignore=shutil.ignore_patterns("state", "*.tmp")
    )
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; the system frees the lock of a dead process.

    Raises AlignzooError when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise AlignzooError(
                f"{folder}: process {file.read().strip() or '?'} is running here; "
                "wait for it, stop it, or choose another folder with --output"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
