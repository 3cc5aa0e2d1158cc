"""Finished work on disk: content digests, atomic records, and reuse within and across runs.

A piece of work (a stage, or a benchmark on one model) owns a folder. While the folder is being
filled its `stage.json` says "running"; last of all it is replaced by a record with the identity
of the work and a digest of every output. Identities are indexed in the cache, so that another
run finds the folder; nothing is believed without its digests.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignzoo.contract.errors import DataError
from alignzoo.store.files import (
    cache_folder,
    digest_of,
    digest_of_value,
    read_json,
    sync_tree,
    write_json,
)
from alignzoo.store.verdicts import Bar, are_enough

RECORD = "stage.json"
STATE = "state"  # what unfinished work goes on from
# What differs between equal runs.
NOT_OUTPUT = frozenset({RECORD, STATE, "timing.jsonl", "logged_samples.jsonl"})
State = Literal["new", "running", "other", "damaged", "below", "done"]
BELOW = (
    "its judges left more without a verdict, or to other models, than the recipe takes now; done "
    "again with the replies that are kept"
)


@dataclass(frozen=True)
class Identity:
    """What a piece of work depends on: the readable manifest and its hash; and what the recipe asks
    of the verdicts of its judges, which is no part of the hash.
    """

    manifest: Mapping[str, Any]
    bars: Mapping[str, Bar] = field(default_factory=dict)  # by place

    @functools.cached_property
    def digest(self) -> str:
        """Sha256 (hex) of the manifest's canonical JSON."""
        return digest_of_value(self.manifest)


def outputs_of(folder: Path) -> dict[str, str]:
    """The digest of everything a piece of work left, by name."""
    return {path.name: digest_of(path) for path in _outputs(folder)}


def _outputs(folder: Path) -> list[Path]:
    kept = (p for p in folder.iterdir() if p.name not in NOT_OUTPUT and p.suffix != ".tmp")
    return sorted(kept)


def recorded_output(folder: Path, name: str) -> str | None:
    """The digest that a finished folder's record states for one output."""
    digest = read_json(folder / RECORD).get("outputs", {}).get(name)
    return str(digest) if digest else None


def check_output(folder: Path, name: str) -> None:
    """Make sure that one output of a finished folder is what its record states.

    Raises DataError naming the files that are not. A folder without a record states nothing.
    """
    record = read_json(folder / RECORD)
    if record.get("status") != "done" or name not in record.get("outputs", {}):
        return
    if record["outputs"][name] != digest_of(folder / name):
        changed = [str(folder / file) for file in changed_files(folder) if file.startswith(name)]
        raise DataError(
            f"{', '.join(changed) or folder / name}: not what the stage wrote, but changed or "
            "damaged since; run its recipe again, which does that stage anew"
        )


def changed_files(folder: Path) -> list[str]:
    """The files of a finished folder that its record states otherwise, relative to it."""
    stated, there = read_json(folder / RECORD).get("files", {}), files_of(folder)
    return sorted(name for name in stated.keys() | there if stated.get(name) != there.get(name))


def files_of(folder: Path) -> dict[str, str]:
    """The digest of every file of the outputs, by its path in the folder."""
    files = (file for path in _outputs(folder) for file in (path, *path.rglob("*")))
    return {f.relative_to(folder).as_posix(): digest_of(f) for f in files if f.is_file()}


def state_of(folder: Path, identity: Identity) -> State:
    """What a folder holds, seen from the work that wants it."""
    record = read_json(folder / RECORD)
    if not record:
        return "other" if folder.exists() and any(folder.iterdir()) else "new"
    if record.get("identity") != identity.digest:
        return "other"
    if record.get("status") != "done":
        return "running"
    if record.get("outputs") != outputs_of(folder):
        return "damaged"
    return "done" if are_enough(folder, identity.bars) else "below"


def why_again(folder: Path, identity: Identity) -> str:
    """Why what a folder holds of this very work, finished, is not taken; nothing where it is."""
    state = state_of(folder, identity)
    if state == "damaged":
        changed = ", ".join(changed_files(folder))
        return f"its files changed since it was finished; done again ({changed})"
    return BELOW if state == "below" else ""


def changed_inputs(folder: Path, identity: Identity) -> list[str]:
    """The parts of the manifest in which the work found in a folder was another one."""
    before = read_json(folder / RECORD).get("manifest", {})
    return [key for key, x in identity.manifest.items() if before and before.get(key) != x]


def resumable(folder: Path, identity: Identity) -> bool:
    """Whether this very work was stopped here after it had kept a part of itself."""
    return state_of(folder, identity) == "running" and (folder / STATE).exists()


def begin(folder: Path, identity: Identity, kept: Container[str] = ()) -> None:
    """Take a folder for a piece of work; of what lies in it, only the names in `kept` stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in list(folder.iterdir()):  # the record last: until then the old one tells the truth
        if path.name != RECORD and path.name not in kept:
            _remove(path)
    write_json(folder / RECORD, _record(identity, "running"))


def finish(folder: Path, identity: Identity) -> None:
    """State that the work is done, and only then forget how far it had come.

    Nothing may be written to the folder after this.
    """
    sync_tree(folder)
    found = {"outputs": outputs_of(folder), "files": files_of(folder)}
    record = _record(identity, "done") | found
    write_json(folder / RECORD, record)
    publish(folder, identity)
    clear_state(folder)


def clear_state(folder: Path) -> None:
    """Remove what a finished piece of work kept to go on from.

    It is renamed first: a kill in between leaves a draft that is swept, never half a state.
    """
    state = folder / STATE
    if state.exists():
        draft = folder / f".{STATE}.tmp"
        _remove(draft)
        state.rename(draft)
        _remove(draft)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
    """The folder that holds this work, finished and undamaged: here, or in another run; one that
    may not be looked at, such as another user's, is none.
    """
    if state_of(folder, identity) == "done":
        return folder
    entry = read_json(_index(identity)).get("folder")
    other = Path(entry) if isinstance(entry, str) else folder
    try:
        return other if other != folder and state_of(other, identity) == "done" else None
    except OSError:
        return None


def adopt(source: Path, folder: Path, identity: Identity) -> bool:
    """Bring another run's finished folder here, by hard links where the disk allows.

    False when the source vanished or changed meanwhile: then it was no source.
    """
    draft = folder.with_name(f".{folder.name}.tmp")
    _remove(draft)
    try:
        shutil.copytree(
            source, draft, copy_function=_link, ignore=shutil.ignore_patterns(STATE, "*.tmp")
        )
    except OSError:  # shutil.Error, a list of what could not be copied, is one too
        _remove(draft)
        return False
    if state_of(draft, identity) != "done":
        _remove(draft)
        return False
    _remove(folder)
    draft.replace(folder)
    return True


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
