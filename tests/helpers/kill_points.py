"""Kill a command at its n-th change of the file system, and see what the next one makes of it.

A child is forked from this warm process, so that a run costs its own work and no imports. An audit
hook sees every change below some folders; a change is an open for writing, a rename, a removal, a
new folder or link, a truncation, or an fsync, before which the file is cut in half: what a crash
leaves of a write that had not reached the disk.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kill_recipes import leftovers, results, write_recipe

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Counter:
    """Counts changes below the roots, and kills the process at one of them."""

    def __init__(self, roots: Sequence[Path], at: int | None) -> None:
        self.roots = tuple(os.path.realpath(root) for root in roots)
        self.at = at
        self.seen = 0

    def below(self, path: object) -> bool:
        """Whether a path lies in one of the folders."""
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return os.path.realpath(os.fsdecode(path)).startswith(self.roots)

    def change(self, cut: int | None = None) -> None:
        """One more change; `cut` is the handle of a file that is not on the disk yet."""
        self.seen += 1
        if self.seen == self.at:
            if cut is not None:
                os.ftruncate(cut, os.fstat(cut).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        """The audit hook."""
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & WRITING
            if writes and self.below(path):
                self.change()
        elif event in CHANGES and self.below(arguments[0]):
            self.change()

    def arm(self) -> None:
        """Begin to count."""
        sync = os.fsync

        def fsync(handle: int) -> None:
            path = os.readlink(f"/proc/self/fd/{handle}")
            if self.below(path) and os.path.isfile(path):
                writable = os.open(path, os.O_WRONLY) if self.seen + 1 == self.at else handle
                self.change(writable)
            sync(handle)

        os.fsync = fsync
        sys.addaudithook(self.hear)


def command(words: Sequence[str], roots: Sequence[Path], at: int | None = None) -> tuple[int, int]:
    """(exit status, changes) of `alignzoo WORDS` in a process of its own; -9 if it was killed."""

    def work(counter: Counter) -> int:
        from alignzoo.cli import main

        sys.argv = ["alignzoo", *words]
        counter.arm()
        try:
            return main()
        except SystemExit as end:
            return int(end.code or 0)

    return forked(work, Counter(roots, at))


def forked(work: Callable[[Counter], int], counter: Counter) -> tuple[int, int]:
    """Do the work in a child that says how many changes it made."""
    hear, tell = os.pipe()
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                status = work(counter)
                sys.stdout.flush()
                sys.stderr.flush()
                os.write(tell, str(counter.seen).encode())
            finally:
                os._exit(status)
        os.close(tell)
        _, ended = os.waitpid(child, 0)
        changes = int(os.read(hear, 20) or 0)
        os.close(hear)
        code = os.waitstatus_to_exitcode(ended)
        if code > 0:
            said.seek(0)
            print(said.read().decode(errors="replace")[-2000:])
    return code, changes


@dataclass(frozen=True)
class Flip:
    """One byte that was changed, and what came of it."""

    file: str
    offset: int
    status: int  # of the command that met it
    same: bool  # whether its results are the undamaged run's

    @property
    def silent(self) -> bool:
        """Whether other results came out and nobody was told."""
        return self.status == 0 and not self.same


@dataclass(frozen=True)
class Place:
    """A recipe, and what it gives when nobody disturbs it."""

    kind: str
    folder: Path
    recipe: Path
    changes: int
    results: Mapping[str, bytes]

    def run(self, name: str, at: int | None = None) -> tuple[int, int]:
        """Run the recipe in a folder and a cache of that name; (exit status, changes)."""
        return in_place(self.recipe, self.folder, name, at)

    def flip(self, seed: int) -> Flip:
        """Change a byte of what a killed or a finished run left, and run again.

        Every second time the other run shares the cache and has a folder of its own.
        """
        noise = random.Random(f"{self.kind} {seed}")
        name = f"flip-{seed}"
        if noise.random() < 0.6:
            self.run(name, noise.randrange(self.changes // 3, self.changes))
        else:
            self.run(name)
        files = [f for f in self._written(name) if f.stat().st_size]
        file = noise.choice(files)
        text = bytearray(file.read_bytes())
        offset = noise.randrange(len(text))
        text[offset] ^= 1 << noise.randrange(8)
        file.unlink()  # another run may have a link to the same bytes
        file.write_bytes(text)
        status = self.run(name)[0]
        same = results(self.folder / name) == self.results
        shown = str(file.relative_to(self.folder))
        return Flip(shown, offset, status, same)

    def _written(self, name: str) -> list[Path]:
        """What a later command may read: not the lock, and no timing."""
        roots = (self.folder / name, self.folder / f"{name}-cache")
        files = sorted(f for root in roots for f in root.rglob("*") if f.is_file())
        return [f for f in files if f.name not in ("lock", "timing.jsonl")]


def in_place(recipe: Path, folder: Path, name: str, at: int | None = None) -> tuple[int, int]:
    """Run a recipe in `folder/name` with a cache of its own."""
    cache = folder / f"{name}-cache"
    os.environ["ALIGNZOO_CACHE"], before = str(cache), os.environ.get("ALIGNZOO_CACHE")
    try:
        words = ["run", str(recipe), "--output", str(folder / name)]
        return command(words, [folder / name, cache], at)
    finally:
        if before is not None:
            os.environ["ALIGNZOO_CACHE"] = before


def prepared(kind: str, folder: Path) -> Place:
    """Write the recipe of a kind and run it undisturbed."""
    warm()
    recipe = write_recipe(kind, folder)
    status, changes = in_place(recipe, folder, "calm")
    if status or leftovers(folder / "calm"):
        raise AssertionError(f"{kind}: the undisturbed run ended with {status}")
    return Place(kind, folder, recipe, changes, results(folder / "calm"))


def warm() -> None:
    """Import once what every child needs."""
    import transformers.models.llama.modeling_llama

    import alignzoo.stages.evaluation.ruled
    import alignzoo.stages.train

    assert alignzoo.stages.train and transformers
