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

from alignzoo.launch.board import Board, Failure
from alignzoo.launch.wish import Wish

STOPPED = 15  # looks in a row at which a worker was stopped (SIGSTOP)
SILENT = 30  # looks in a row at which another machine said nothing new
GRACE = 10  # looks that the others have to end by themselves after a failure
STUCK = 300.0  # seconds after which workers that all wait for each other are told so
INTERRUPTED = (130, 143)  # exit statuses after SIGINT and SIGTERM
SAID = (60.0, 600.0, 3600.0)  # seconds of waiting after which a reader is told


class Watch(threading.Thread):
    """Ends stopped workers, those of a failed run, and says who waits for whom.

    A stopped worker is known by the state that the system shows. One whose threads do not answer
    may hold Python's lock in a long computation, so silence alone never ends a worker.
    """

    def __init__(self, board: Board, wish: Wish) -> None:
        super().__init__(daemon=True)
        self.board, self.wish, self.over = board, wish, threading.Event()
        first = wish.here * (wish.processes or 1)
        self.local = range(first, first + (wish.processes or 1))
        self.stopped = dict.fromkeys(self.local, 0)
        self.silent = {n: (0, 0) for n in range(wish.machines) if n != wish.here}  # beat, looks
        self.beat = self.failing = self.told = 0

    def run(self) -> None:
        """Look every second until it is over."""
        while not self.over.wait(1.0):
            try:
                self._look()
            except RuntimeError:
                self._kill("machine 0, which started this run, does not answer any more")

    def _look(self) -> None:
        pids = {n: pid for n in self.local if (pid := self.board.get(f"pid/{n}"))}
        states = {n: state_of(pid) for n, pid in pids.items()}
        self._stopped(states)
        self._machines()
        self._waits()
        lost = [n for n, state in states.items() if not state and not self.board.end(n)]
        for n in lost:
            self._fail(n, f"worker {n} of {self.wish.world} was killed or crashed", code=-1)
        if self.board.first() is not None or self._broken():
            self.failing += 1
        if self.failing > GRACE:
            for pid in pids.values():
                _kill(pid)

    def _broken(self) -> bool:
        """Whether a worker here has ended with an error, be it only the loss of another."""
        ends = (self.board.end(n) for n in self.local)
        return any(end is not None and end.code not in (0, *INTERRUPTED) for end in ends)

    def _stopped(self, states: Mapping[int, str]) -> None:
        for n, state in states.items():
            self.stopped[n] = self.stopped[n] + 1 if state == "T" else 0
            if self.stopped[n] == STOPPED:
                self._fail(
                    n,
                    f"worker {n} of {self.wish.world} has been stopped (SIGSTOP) for "
                    f"{STOPPED} s; the run cannot go on without it",
                )
                _kill(self.board.get(f"pid/{n}"))

    def _machines(self) -> None:
        """Tell the other machines that this one lives, and notice when one does not."""
        if not self.silent:
            return
        self.beat += 1
        self.board.put(f"beat/{self.wish.here}", self.beat)
        for n, (last, looks) in self.silent.items():
            beat = self.board.get(f"beat/{n}") or 0
            self.silent[n] = (beat, 0 if beat != last else looks + 1)
            if self.silent[n][1] == SILENT and self.board.get(f"left/{n}") is None and beat:
                rank = n * (self.wish.processes or 1)
                self._fail(rank, f"machine {n} has not answered for {SILENT} s")

    def _waits(self) -> None:
        """Say once in a while who waits for whom; workers that all wait will do so forever."""
        waited = [float(self.board.get(f"waited/{n}") or 0.0) for n in range(self.wish.world)]
        if min(waited) > STUCK:
            self._fail(0, f"all workers have waited for each other for {STUCK:.0f} s")
        longest = max(waited)
        if longest < SAID[0]:
            self.told = 0
        elif self.told < len(SAID) and longest >= SAID[self.told] and self.wish.here == 0:
            self.told += 1
            busy = ", ".join(str(n) for n, seconds in enumerate(waited) if seconds < longest / 2)
            if busy:
                print(f"waiting for worker {busy} since {longest:.0f} s", file=sys.stderr)

    def _fail(self, rank: int, what: str, code: int = 1) -> None:
        text = f"error: {what}; the same command goes on from what is kept"
        self.board.claim("first", asdict(Failure(rank, text, what, code)))

    def _kill(self, why: str) -> None:
        """Without the group's store there is nothing to wait for."""
        print(f"error: {why}", file=sys.stderr)
        os._exit(1)


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


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
