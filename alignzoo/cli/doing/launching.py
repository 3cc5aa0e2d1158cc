"""`alignzoo run --processes`: this process starts workers, and speaks for all of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from alignzoo.cli.doing.running import Asked, resume_hint, run_command, run_seeds_command
from alignzoo.cli.doing.sweeping import sweep_command, sweep_folder, sweep_recipes
from alignzoo.cli.terminal.names import find_recipe
from alignzoo.launch.board import Failure
from alignzoo.launch.wish import Wish, check, join_slurm, refuse_nested
from alignzoo.launch.worker import launched
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.store.files import read_json
from alignzoo.store.runs import note_run


def launched_command(asked: Asked, wish: Wish) -> int:
    """Run a recipe in this process, or in as many as were asked for; the exit status."""
    if wish.processes is None and wish.machines == 1 and not launched():
        os.environ.update(join_slurm(os.environ))
    if not launched():
        check(wish, _devices() if wish.processes else 0)
    if wish.world == 1:
        return _here(asked)
    refuse_nested(wish, os.environ)
    if asked.sweep:
        return _launch(asked, wish, sweep_folder(asked, sweep_recipes(asked)))
    registry = load_plugins()
    recipe = load_recipe(find_recipe(asked.recipe), registry, asked.overrides)
    return _launch(asked, wish, asked.folder(recipe, registry))


def _here(asked: Asked) -> int:
    if asked.sweep:
        return sweep_command(asked)
    return run_command(asked) if asked.seeds == 1 else run_seeds_command(asked)


def _launch(asked: Asked, wish: Wish, folder: Path) -> int:
    from alignzoo.launch.supervise import launch

    end = launch(asked.words, wish)
    folder = end.folder or folder
    if wish.here == 0:
        _finish_record(folder, end.failure, end.signal)
    if end.signal:
        print(f"\n{resume_hint(folder)}", file=sys.stderr)
        return 128 + end.signal
    if end.failure is not None:
        print(f"{end.failure.text}\n(worker {end.failure.rank} of {wish.world})", file=sys.stderr)
        return end.failure.code if end.failure.code > 0 else 1
    return 0


def _finish_record(folder: Path, failure: Failure | None, number: int) -> None:
    """Rank 0 may have written what it saw of another's end, or nothing at all."""
    record = read_json(folder / "run.json")
    if failure is not None and record:
        note_run(folder, status="failed", error=failure.what, worker=failure.rank)
    elif number and record.get("status") == "running":
        note_run(folder, status="interrupted")


def _devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
