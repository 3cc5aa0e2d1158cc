"""Work in parts that all ranks share, and an account of what each of them did."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from alignzoo.engine.parallel.exchange import everyone
from alignzoo.store.parts import done_in_parts

P = TypeVar("P")


def shared_out(file: Path, parts: Sequence[P], work: Callable[[P], Any]) -> Iterator[Any]:
    """The value of every part, on every rank, as `done_in_parts` with all of them.

    Parts are made before they are shared out, so that no value depends on the number of ranks.
    `timing.jsonl` of the stage gets a row per rank: how many parts it worked out, in how long.
    """
    crew, taken = everyone(), list[float]()

    def timed(part: P) -> Any:
        started = time.perf_counter()
        value = work(part)
        taken.append(time.perf_counter() - started)
        return value

    yield from done_in_parts(file, parts, timed, crew)
    mine = {"work": file.stem, "rank": crew.rank, "parts": len(taken), "seconds": sum(taken)}
    rows = crew.gathered(mine)
    if crew.is_main:
        # Two levels up: parts lie in the stage's state.
        with (file.parent.parent / "timing.jsonl").open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
