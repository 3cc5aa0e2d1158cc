"""A worker's side: it says that it lives and whether it waits, and leaves its error to be printed.

Under `alignzoo run --processes` the launching process prints the one error that came first. Under
another launcher the worker that failed first prints its own, and the others hold back what they
only saw of it ("Connection reset by peer").
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from alignzoo.contract.errors import RankError
from alignzoo.launch.board import PATIENCE, Board, Failure

LAUNCHED = "ALIGNZOO_LAUNCHED"  # set for the workers that `run --processes` starts
BEAT = 1.0  # seconds
IDLE = 0.005  # seconds of CPU in a beat: less than this is no transfer of tensors
SEES = timedelta(seconds=5)  # how long a dying worker looks for the store
LOST = re.compile(r"gloo|NCCL|c10d|by peer|Broken pipe|TCPStore", re.IGNORECASE)
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def launched() -> bool:
    """Whether `alignzoo run --processes` started this process."""
    return LAUNCHED in os.environ


def in_group() -> bool:
    """Whether this process is one of several that can be reached."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ


def rank() -> int:
    """Number of this process."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def at_work() -> Iterator[None]:
    """Tell the launching process about this one while it works, and end when that one ends."""
    if not launched():
        yield
        return
    _die_with_parent()
    board, over = _board(PATIENCE), threading.Event()
    board.put(f"pid/{rank()}", os.getpid())
    threading.Thread(target=_beat, args=(board, over), daemon=True).start()
    code: Any = 1
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code or 0
        raise
    finally:
        over.set()
        if board.end(rank()) is None:
            board.put(f"end/{rank()}", asdict(Failure(rank(), "", "", code, symptom=True)))


def tell(text: str, error: BaseException, code: int) -> None:
    """Print an error, or leave it to whoever prints for the group."""
    if not in_group():
        print(text, file=sys.stderr)
        return
    heard = isinstance(error, RankError) and error.rank is not None  # of one that tells itself
    symptom = heard or isinstance(error, KeyboardInterrupt) or _only_lost(error)
    what = f"{type(error).__name__}: {error}"
    failure = Failure(rank(), text, what, code, symptom)
    try:
        board = _board(SEES)
        mine = board.tell(failure)
        mine = mine or (symptom and not heard and board.first() is None)
    except RuntimeError:  # the store is gone with whoever kept it
        mine = not launched()
    if mine and not launched():
        print(text, file=sys.stderr)


def earlier_failure(error: BaseException) -> Failure | None:
    """The failure of another worker of which an error here is only a symptom."""
    symptom = isinstance(error, KeyboardInterrupt) or _only_lost(error)
    if not symptom or not in_group():
        return None
    try:
        return _board(SEES).first()
    except RuntimeError:
        return None


def place_run(folder: Path) -> None:
    """Say where the run's folder is, for the launching process to finish its record."""
    if launched() and rank() == 0:
        _board(PATIENCE).put("folder", str(folder))


def _only_lost(error: BaseException | None) -> bool:
    """Whether an error says no more than that another worker went away."""
    while error is not None:
        if isinstance(error, RuntimeError) and LOST.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _board(patience: timedelta) -> Board:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return Board(TCPStore(host, port, is_master=False, timeout=patience))


def _die_with_parent() -> None:
    """Where the system can: no orphan is left, stopped or busy as it may be."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def _beat(board: Board, over: threading.Event) -> None:
    """Say every second how long the main thread has waited for others without a change, and for
    how much of that, up to now, nothing was transferred either.
    """
    main, parent = threading.main_thread().ident, os.getppid()
    place, since = None, time.monotonic()
    still, spent = since, _spent()
    while not over.wait(BEAT):
        if os.getppid() != parent:
            os._exit(1)
        now = _waiting_at(sys._current_frames().get(main or 0))
        if now != place:
            place, since = now, time.monotonic()
        spent, before = _spent(), spent
        if spent - before > IDLE or not (place and place[0]):
            still = time.monotonic()  # it computes, or tensors are on their way
        waited = time.monotonic() - since if place else 0.0
        with suppress(RuntimeError):  # the launching process is paused, or gone, which ends this
            board.put(f"waited/{rank()}", [waited, min(waited, time.monotonic() - still)])


def _spent() -> float:
    """Seconds of CPU that this process has taken, the calling thread apart."""
    return time.process_time() - time.thread_time()


def _waiting_at(frame: FrameType | None) -> tuple[bool, int, int] | None:
    """The call that the innermost frame is in, if others may keep it waiting; whether they do.

    A backward pass waits for the gradients of other workers, and computes its own.
    """
    file = frame.f_code.co_filename if frame is not None else ""
    sure = "torch/distributed/" in file
    if frame is None or not (sure or "torch/autograd/" in file):
        return None
    return sure, id(frame), frame.f_lasti
