"""Long work as a journal of small finished parts, so that a stop costs the part under way.

One line per part: its number, its value, and a checksum of both. A line that a kill has cut, or
whose checksum is another, counts as not there: that part is done again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

P = TypeVar("P")


def done_in_parts(file: Path, parts: Sequence[P], work: Callable[[P], Any]) -> Iterator[Any]:
    """The JSON-able value of every part in order: from the journal, else worked out and kept.

    Whoever calls makes equal parts again after a stop, and works out each from the part alone.
    """
    kept = read_parts(file)
    for number, part in enumerate(parts):
        if number not in kept:
            value = work(part)
            keep_part(file, number, value)
            yield value
        else:
            yield kept[number]


def read_parts(file: Path) -> dict[int, Any]:
    """The parts that are kept whole."""
    if not file.exists():
        return {}
    rows = map(_row, file.read_bytes().splitlines())
    return {number: value for number, value in filter(None, rows)}


def keep_part(file: Path, number: int, value: Any) -> None:
    """Add one part and bring it to the disk; the caller holds the run's lock."""
    text = json.dumps([number, value], separators=(",", ":"))
    file.parent.mkdir(parents=True, exist_ok=True)
    # A new line first: a kill may have cut the one before.
    with file.open("ab") as out:
        out.write(f"\n{zlib.crc32(text.encode()):08x} {text}\n".encode())
        out.flush()
        os.fsync(out.fileno())


def _row(line: bytes) -> tuple[int, Any] | None:
    checksum, _, text = line.partition(b" ")
    if checksum.decode("ascii", "replace") != f"{zlib.crc32(text):08x}":
        return None
    number, value = json.loads(text)
    return int(number), value
