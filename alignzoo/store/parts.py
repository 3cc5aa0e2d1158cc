"""Long work as a journal of small finished parts, so that a stop costs the part under way.

One line per part: its number, its value, and a checksum of both. A line that a kill has cut, or
whose checksum is another, counts as not there: that part is done again. Ranks share parts out, and
rank 0 keeps them all, so that another number of ranks goes on from the same journal.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from alignzoo.engine.parallel.exchange import ALONE, Crew

P = TypeVar("P")


def done_in_parts(
    file: Path, parts: Sequence[P], work: Callable[[P], Any], crew: Crew = ALONE
) -> Iterator[Any]:
    """The JSON-able value of every part in order: from the journal, else worked out and kept.

    Whoever calls makes equal parts again after a stop, and works out each from the part alone.
    Every rank of the crew gets every value; it works out each `crew.size`-th that is missing.
    """
    found = crew.from_main(lambda: read_parts(file))
    missing = [number for number in range(len(parts)) if number not in found]
    rounds = iter([missing[s : s + crew.size] for s in range(0, len(missing), crew.size)])
    for number in range(len(parts)):
        if number not in found:  # then it is the first of the next round
            found |= _round(file, parts, next(rounds), work, crew)
        yield found.pop(number)


def _round(
    file: Path, parts: Sequence[P], numbers: Sequence[int], work: Callable[[P], Any], crew: Crew
) -> dict[int, Any]:
    """One part per rank at most; rank 0 keeps what all of them found."""
    mine = {number: work(parts[number]) for number in numbers[crew.rank : crew.rank + 1]}
    done = {number: value for some in crew.gathered(mine) for number, value in some.items()}
    for number, value in done.items() if crew.is_main else ():
        keep_part(file, number, value)
    return done


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
