"""What a training stage leaves on disk line by line, and how it is asked to stop."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import Interrupted


@dataclass
class Asked:
    """Whether a signal asked to stop, and which; 0 is none."""

    number: int = 0


@contextmanager
def interrupts() -> Iterator[Asked]:
    """The first SIGINT or SIGTERM asks to stop between buffers; the next goes to whoever handled
    signals before, who need not be so patient.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        if not asked.number:
            asked.number = number
            return
        earlier = before[signal.Signals(number)]
        if callable(earlier):
            earlier(number, frame)
        raise Interrupted(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def rows_until(path: Path, step: int) -> list[dict[str, float]]:
    """The logged rows up to a step; a line that is none is passed over."""
    if not path.exists():
        return []
    rows = map(_row, path.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if _step_of(row) <= step]


def keep_bytes(path: Path, size: int) -> None:
    """Drop what was written after a checkpoint: it will be written again, bit for bit."""
    if path.exists():
        os.truncate(path, size)


def keep_until(path: Path, step: int) -> None:
    """Drop lines after a step, of a log whose bytes differ between equal runs.

    Lines of other work stay: it was done.
    """
    if path.exists():
        rows = [(line, _row(line)) for line in path.read_text().splitlines()]
        kept = [line for line, row in rows if "work" in row or _step_of(row) <= step]
        path.write_text("".join(f"{line}\n" for line in kept))


def _row(line: str) -> dict[str, float]:
    """A logged line, or nothing where it was torn by a crash."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _step_of(row: Mapping[str, float]) -> float:
    """The step of a row; one without any is later than everything."""
    step = row.get("step", math.inf)
    return step if isinstance(step, int | float) else math.inf
