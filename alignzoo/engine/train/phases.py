"""Where the time of a training stage goes: the names of its phases, and a clock that fills them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.engine.train.journal import append_row

SAMPLING = "sampling"  # handing weights to the engine, and its answers
REWARD = "reward"  # judges and reward models
SNAPSHOTS = "snapshots"  # what is read without gradient: the reference pass, and every buffer
FORWARD = "forward"  # of what learns; scorers that form the gradient at once do it here
BACKWARD = "backward"
OPTIMISER = "optimiser"  # clipping and the update
DATA = "data"  # making buffers and batches
CHECKPOINT = "checkpoint"  # writing and reading them
VALIDATION = "validation"  # the loss of held-out data
REST = "rest"  # loading models, `prepare`, `loss`, metrics, logs
PHASES = (SAMPLING, REWARD, SNAPSHOTS, FORWARD, BACKWARD, OPTIMISER, DATA, CHECKPOINT, VALIDATION)

Row = dict[str, Any]


class Clock:
    """Wall and CPU seconds of this process by phase; of nested ones the innermost counts.

    Every moment belongs to exactly one phase, so that phases add up to the time between two laps.
    On an accelerator these are the host's: work that it only starts in one phase is waited for in
    a later one.
    """

    def __init__(self) -> None:
        self._phase = REST
        self._since = (time.perf_counter(), time.process_time())
        self._wall: dict[str, float] = {}
        self._cpu: dict[str, float] = {}

    def during(self, phase: str) -> _During:
        """What is done in here belongs to a phase."""
        return _During(self, phase)

    def lap(self) -> Row:
        """What was spent since the last lap, as a row of `timing.jsonl`."""
        self._turn(self._phase)
        wall, cpu = self._wall, self._cpu
        self._wall, self._cpu = {}, {}
        spent = {"seconds": sum(wall.values()), "cpu_seconds": sum(cpu.values())}
        return {**spent, "phases": wall, "cpu_phases": cpu}

    def _turn(self, phase: str) -> str:
        """Another phase begins; the one that ends."""
        ended, (wall, cpu) = self._phase, self._since
        now = (time.perf_counter(), time.process_time())
        self._wall[ended] = self._wall.get(ended, 0.0) + now[0] - wall
        self._cpu[ended] = self._cpu.get(ended, 0.0) + now[1] - cpu
        self._phase, self._since = phase, now
        return ended


class _During:
    """A phase, and the one around it."""

    def __init__(self, clock: Clock, phase: str) -> None:
        self._clock, self._phase = clock, phase

    def __enter__(self) -> None:
        self._phase = self._clock._turn(self._phase)

    def __exit__(self, *error: object) -> None:
        self._clock._turn(self._phase)


@dataclass(frozen=True)
class Times:
    """`timing.jsonl` of a training stage; rank 0's times are the stage's."""

    file: Path
    kept: bool  # on this rank

    def note(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        if self.kept:
            append_row(self.file, row)

    def close(self, say: Callable[[str], None]) -> None:
        """Keep and say where the time of the whole stage went."""
        if self.kept:
            row = summary(self.file)
            self.note(row)
            say(told(row))


def summary(file: Path) -> Row:
    """All rows of a log together, those of interrupted attempts included."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "shares" not in row]
    total = sum(row["seconds"] for row in rows)
    shares = {phase: _sum(rows, phase) / total for phase in (*PHASES, REST)}
    return {
        "work": "stage",
        "seconds": total,
        "cpu_seconds": sum(row.get("cpu_seconds", 0.0) for row in rows),
        "shares": {phase: share for phase, share in shares.items() if share},
    }


def _sum(rows: Sequence[Mapping[str, Any]], phase: str) -> float:
    """A row that an older version wrote has no phases."""
    return float(sum(row.get("phases", {REST: row["seconds"]}).get(phase, 0.0) for row in rows))


def told(row: Row) -> str:
    """A summary in words, the largest share first."""
    shares = sorted(row["shares"].items(), key=lambda pair: -pair[1])
    parts = [f"{phase} {share:.0%}" for phase, share in shares if share >= 0.005]
    return f"{row['seconds']:.1f} s: {', '.join(parts)}"
