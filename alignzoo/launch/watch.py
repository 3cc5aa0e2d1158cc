"""What the launching process looks at every second while its workers work."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from alignzoo.launch.board import RESUMES, Board, Failure
from alignzoo.launch.wish import Wish
from alignzoo.store.files import read_json

STOPPED = 15  # looks in a row at which a worker was stopped (SIGSTOP)
SILENT = 20  # looks in a row at which another machine said nothing new
GRACE = 10  # looks that the others have to end by themselves after a failure
STUCK = 300.0  # seconds after which workers that all wait, and transfer nothing, are ended
SAID = (60.0, 600.0, 3600.0)  # seconds of waiting after which a reader is told
INTERRUPTED = (130, 143)  # exit statuses after SIGINT and SIGTERM


class Watch(threading.Thread):
    """Ends stopped workers and those of a failed run, and says who waits for whom.

    A stopped worker is known by the state that the system shows. One whose threads do not answer
    may hold Python's lock in a long computation, so silence alone never ends a worker.
    """

    def __init__(self, board: Board, wish: Wish) -> None:
        super().__init__(daemon=True)
        self.board, self.wish, self.over = board, wish, threading.Event()
        self.pids: dict[int, int] = {}  # worker of this machine -> process
        self.stopped = dict.fromkeys(wish.local, 0)
        self.silent = {n: (0, 0) for n in range(wish.machines) if n != wish.here}  # beat, looks
        self.beat = self.failing = self.told = 0

    def run(self) -> None:
        """Look every second until it is over."""
        while not self.over.wait(1.0):
            try:
                self._look()
            except RuntimeError:  # the machine that keeps the store is gone
                self._end_workers()

    def _look(self) -> None:
        self.pids = {n: pid for n in self.wish.local if (pid := self.board.get(f"pid/{n}"))}
        states = {n: state_of(pid) for n, pid in self.pids.items()}
        ends = [self.board.end(n) for n in self.wish.local]
        self._see_workers(states)
        if self.silent:
            self._see_machines()
        self._see_waits()
        broken = any(end and end.code not in {0, *INTERRUPTED} for end in ends)
        if broken or self.board.first() is not None:
            self.failing += 1
        if self.failing > GRACE:
            self._end_workers()

    def _end_workers(self, *numbers: int) -> None:
        """Those workers, or all of this machine."""
        for n in numbers or self.pids:
            with suppress(ProcessLookupError):
                os.kill(self.pids[n], signal.SIGKILL)

    def _see_workers(self, states: Mapping[int, str]) -> None:
        for n, state in states.items():
            if not state and not self.board.end(n):
                self._fail(n, f"worker {n} of {self.wish.world} was killed or crashed", code=-1)
            self.stopped[n] = self.stopped[n] + 1 if state == "T" else 0
            if self.stopped[n] == STOPPED:
                what = f"worker {n} of {self.wish.world} has been stopped (SIGSTOP)"
                self._fail(n, f"{what} for {STOPPED} s, and the others cannot go on without it")
                self._end_workers(n)

    def _see_machines(self) -> None:
        """Tell the other machines that this one lives, and notice when one does not."""
        self.beat += 1
        self.board.put(f"beat/{self.wish.here}", self.beat)
        for n, (last, looks) in self.silent.items():
            beat = self.board.get(f"beat/{n}") or 0
            self.silent[n] = (beat, 0 if beat != last else looks + 1)
            if beat and looks >= SILENT and not self.board.get(f"the end of machine {n}"):
                rank = n * (self.wish.processes or 1)
                self._fail(rank, f"machine {n} has not answered for {SILENT} s")

    def _see_waits(self) -> None:
        """Say once in a while who waits for whom; workers that all wait will do so forever."""
        told = [self.board.get(f"waited/{n}") or (0.0, 0.0) for n in range(self.wish.world)]
        waited = [seconds for seconds, _ in told]
        longest = max(waited)
        if min(still for _, still in told) > STUCK:
            self._fail(0, f"all workers have waited for each other for {STUCK:.0f} s")
        if longest < SAID[0]:
            self.told = 0
        elif self.wish.here == 0 and self.told < len(SAID) and longest >= SAID[self.told]:
            self.told += 1
            busy = ", ".join(str(n) for n, seconds in enumerate(waited) if seconds < longest / 2)
            if busy:
                text = f"waiting for worker {busy} since {longest:.0f} s{self._stage()}"
                print(text, file=sys.stderr, flush=True)

    def _stage(self) -> str:
        pieces = read_json(Path(self.board.get("folder") or "") / "run.json").get("pieces", {})
        names = [name for name, piece in pieces.items() if piece.get("status") == "running"]
        return f" (in stage '{names[-1]}')" if names else ""

    def _fail(self, rank: int, what: str, code: int = 1) -> None:
        text = f"error: {what}; {RESUMES}"
        self.board.claim("first", asdict(Failure(rank, text, what, code)))


def state_of(pid: int) -> str:
    """The letter that Linux shows for a process: R, S, D, T (stopped); "" if it is gone."""
    if sys.platform != "linux":
        return "R"
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state = text.rpartition(")")[2].split()[0]
    return "" if state in "ZX" else state
