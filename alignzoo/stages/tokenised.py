"""Tokens of data that were read before, kept by content: the samples, the tokenizer, the rules.

A stage of a method that learns from the same data reads them here instead of asking the tokenizer;
another length limit does not matter, because nothing is cut yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import torch

import alignzoo
from alignzoo.contract.types import Batch, Tokens
from alignzoo.data.reader import Reader
from alignzoo.data.rows import row_from_sample
from alignzoo.data.samples import Loaded
from alignzoo.data.tokens import AllRead, Read, Remember, anew
from alignzoo.engine.models.tensors import DamagedFile, read_tensors, write_tensors
from alignzoo.engine.parallel.agreement import is_main
from alignzoo.recipe.registry import source_digest
from alignzoo.store.code import core_digest
from alignzoo.store.files import cache_folder

FEWEST = 1000  # samples for which it is worth a file
ROOM = 2 * 2**30  # bytes of all files together; those that were not used for longest go first


def remembered(
    loaded: Loaded,
    kind: type[Batch],
    reader: Reader,
    ends: tuple[int, ...],
    say: Callable[[str], None],
    loaders: Sequence[str] = (),
) -> Remember:
    """What `encode_all` may know of these samples; `say` is told what is kept, and where.

    `ends` are the ids that the limits say end an answer, `loaders` the code of the plug-ins that
    may have made the tokenizer.
    """
    if len(loaded.samples) < FEWEST or not reader.content:
        return anew
    try:
        name = _name(loaded, kind, reader, (ends, loaders))
    except (TypeError, ValueError):  # a data set may put anything beside a prompt
        return anew
    file = cache_folder() / "tokens" / f"{name}.safetensors"
    try:
        file.exists()
    except OSError as error:
        say(
            f"their tokens are not kept for other stages: {file.parent} cannot be read "
            f"({error.strerror}); set ALIGNZOO_CACHE to a folder that can"
        )
        return anew

    def found_or(read: Callable[[], AllRead]) -> AllRead:
        if (known := _load(file, say)) is not None:
            return known
        made = read()
        if is_main():
            _keep(file, made, say)
        return made

    return found_or


def _name(
    loaded: Loaded,
    kind: type[Batch],
    reader: Reader,
    given: tuple[tuple[int, ...], Sequence[str]],
) -> str:
    """Hash of all that decides what is read, and of what is said of rows that cannot be.

    Raises TypeError for what has no bytes to be known by.
    """
    ends, loaders = given
    libraries = [f"{name} {version(name)}" for name in ("tokenizers", "transformers")]
    tokenizer = (reader.content, ends or reader.ends, repr(reader.rules), repr(reader.embedding))
    batch = (_written(kind), [field.name for field in fields(kind)], kind.rows_per_item)
    head = json.dumps([core_digest(), libraries, tokenizer, list(loaders), batch])
    digest = hashlib.sha256(head.encode())
    for sample, place in zip(loaded.samples, loaded.places, strict=True):
        row = [type(sample).__name__, row_from_sample(sample), place]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _written(kind: type[Batch]) -> list[tuple[str, str]]:
    """A class and its bases, each with the code of its package."""
    return [(f"{cls.__module__}.{cls.__qualname__}", _code(cls)) for cls in kind.__mro__]


def _code(cls: type) -> str:
    package = cls.__module__.partition(".")[0]
    if package in (alignzoo.__name__, object.__module__):
        return ""
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        raise TypeError(f"{cls} has no file")
    return source_digest(Path(file))


def _load(file: Path, say: Callable[[str], None]) -> AllRead | None:
    """What was kept; None without it, or where the file is not what was written."""
    if not file.exists():
        return None
    try:
        tensors, notes = read_tensors(file)
    except DamagedFile as damage:
        say(f"{damage}; the data are read again")
        return None
    with suppress(OSError):
        os.utime(file)
    rows = _rows(*(tensors[name].tolist() for name in ("ids", "rows", "learnt")))
    return [
        told
        if isinstance(told, str)
        else [
            Read(tuple(next(rows) for _ in range(n)), tuple(left_out), spells, empty)
            for n, left_out, spells, empty in told
        ]
        for told in json.loads(notes["samples"])
    ]


def _rows(ids: list[int], rows: list[list[int]], learnt: list[int]) -> Iterator[Tokens]:
    at = marks = 0
    for prompt, response, marked in rows:
        middle, end = at + prompt, at + prompt + response
        marks, first = marks + response * marked, marks
        said = tuple(map(bool, learnt[first:marks])) if marked else None
        yield Tokens(tuple(ids[at:middle]), tuple(ids[middle:end]), said)
        at = end


def _keep(file: Path, made: AllRead, say: Callable[[str], None]) -> None:
    """Write what was read, if the disk lets it, and make room for it."""
    rows = [row for found in made if not isinstance(found, str) for x in found for row in x.rows]
    told = [
        x if isinstance(x, str) else [(len(r.rows), r.left_out, r.spells, r.empty) for r in x]
        for x in made
    ]
    tensors = {
        "ids": torch.tensor([i for x in rows for i in x.prompt + x.response], dtype=torch.int32),
        "rows": torch.tensor(
            [(len(x.prompt), len(x.response), x.learnt is not None) for x in rows],
            dtype=torch.int32,
        ).view(-1, 3),
        "learnt": torch.tensor([m for x in rows for m in x.learnt or ()], dtype=torch.uint8),
    }
    size = sum(x.nbytes for x in tensors.values())
    if size > ROOM:
        return
    with suppress(OSError):
        write_tensors(file, tensors, {"samples": json.dumps(told)})
        say(f"their tokens are kept in {file.parent}, {size / 2**20:.1f} MB, for other stages")
        _make_room(file.parent)


def _make_room(folder: Path) -> None:
    """Remove the files that were not used for longest; another process may do the same."""
    found = [(file.stat(), file) for file in folder.glob("*.safetensors")]
    held = sum(about.st_size for about, _ in found)
    for about, file in sorted(found, key=lambda pair: pair[0].st_mtime):
        if held <= ROOM:
            return
        file.unlink(missing_ok=True)
        held -= about.st_size
