"""What a training stage leaves on disk line by line, and how it is asked to stop."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """The first SIGINT or SIGTERM asks to stop between buffers; the second stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Add one line."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def keep_until(path: Path, step: int) -> None:
    """Drop lines after a step: they will be written again, bit for bit."""
    if path.exists():
        rows = path.read_text().splitlines()
        path.write_text("".join(f"{r}\n" for r in rows if _step_of(r) <= step))


def _step_of(row: str) -> float:
    """The step of a logged line; a line torn by a crash is later than everything."""
    try:
        return float(json.loads(row)["step"])
    except (ValueError, KeyError):
        return math.inf
