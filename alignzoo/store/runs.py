"""A run's folder: who may write to it, and `run.json`, which says how far the run came."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

import alignzoo
from alignzoo.contract.errors import AlignzooError, UsageError
from alignzoo.recipe.blocks import Recipe
from alignzoo.store.files import read_json, sweep, write_json, write_text
from alignzoo.store.folders import resolved

RESULTS = ("stages", "evaluations", "answers", "samples", "trackers")  # folders of a run
LIBRARIES = ("torch", "transformers", "accelerate", "datasets")


@contextmanager
def writing(
    folder: Path,
    recipe: Recipe,
    source: str,
    plugins: Sequence[str],
    ended: Callable[[BaseException | None], None],
) -> Iterator[None]:
    """Hold a run's folder, and leave a truthful `run.json` however the run ends.

    `source` is the recipe's text as written, `plugins` the identities of what is installed;
    `ended` is told the error that ends the run, or None, when everything is written.
    Raises UsageError when something else made the folder, AlignzooError when it is in use.
    """
    _refuse_foreign(folder)
    with locked(folder):
        _open(folder, recipe, source, plugins)
        try:
            yield
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            _end(folder, "interrupted" if stopped else "failed", error)
            ended(error)
            raise
        _end(folder, "done", None)
        ended(None)


def note_piece(folder: Path, piece: str, **entry: Any) -> None:
    """Note in `run.json` how far a piece of work has come."""
    record = read_json(folder / "run.json")
    record["pieces"] = record.get("pieces", {}) | {piece: entry}
    write_json(folder / "run.json", record)


def forget(folder: Path) -> None:
    """Delete the results of a run; the caller holds its lock."""
    for part in RESULTS:
        shutil.rmtree(folder / part, ignore_errors=True)
    for name in ("scores.jsonl", "leaderboard.md", "report.html", "report.json"):
        (folder / name).unlink(missing_ok=True)


def note_run(folder: Path, **entry: Any) -> None:
    """Note something about the whole run in `run.json`."""
    write_json(folder / "run.json", read_json(folder / "run.json") | entry)


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


def _refuse_foreign(folder: Path) -> None:
    """Never write into a folder that something else made."""
    if not folder.exists():
        return
    # One look: another process may be making the folder, and its lock is the first file.
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if names and not names & {"run.json", "lock"}:
        raise UsageError(f"{folder}: not empty and no run of a recipe; choose another --output")


def _open(folder: Path, recipe: Recipe, source: str, plugins: Sequence[str]) -> None:
    sweep(folder)
    write_text(folder / "source.yaml", source)
    text = yaml.safe_dump(resolved(recipe), sort_keys=False, allow_unicode=True)
    write_text(folder / "recipe.yaml", text)
    write_json(
        folder / "run.json",
        {
            "recipe": recipe.name,
            "status": "running",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "alignzoo": alignzoo.__version__,
                "python": platform.python_version(),
                **{name: version(name) for name in LIBRARIES},
            },
            "plugins": list(plugins),
            "pieces": {},
        },
    )


def _end(folder: Path, status: str, error: BaseException | None) -> None:
    record = read_json(folder / "run.json")
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    said = {"error": f"{type(error).__name__}: {error}"} if status == "failed" else {}
    write_json(folder / "run.json", record | {"status": status, "ended": ended} | said)
