"""The launching process: it starts this machine's workers, watches them, and ends them together.

Workers come from `torch.distributed.launcher.api.elastic_launch` with its static rendezvous: the
one that keeps to the machine numbers that were given, so that rank 0, which writes, is where it
was asked for. A thread beside it watches what elastic does not: stopped workers, other machines,
and who failed first.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from alignzoo.contract.errors import UsageError
from alignzoo.launch.board import PATIENCE, Board, Failure
from alignzoo.launch.watch import INTERRUPTED, Watch
from alignzoo.launch.wish import Wish, threads
from alignzoo.launch.worker import COMMAND

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig

JOINING = timedelta(minutes=5)  # for the other machines
AT_LEISURE = 7 * 24 * 3600  # seconds to save after Ctrl-C; the second one does not wait
SIGNALS = ("SIGINT", "SIGTERM")


@dataclass(frozen=True)
class End:
    """How a launch ended: by itself, by a signal, or with the failure that came first."""

    failure: Failure | None
    signal: int  # that this process got, or a worker alone; 0 is none
    folder: Path | None  # of the run, where a worker said so


def launch(words: Sequence[str], wish: Wish) -> End:
    """Run `alignzoo WORDS` on every worker of this machine until all have ended.

    SIGINT and SIGTERM are handed on to the workers, which keep what they have. Raises UsageError
    when the machines cannot meet.
    """
    board = _board(wish)
    _agree(board, words, wish)
    os.environ[COMMAND] = shlex.join(["alignzoo", *sys.argv[1:]])
    os.environ.setdefault("OMP_NUM_THREADS", str(threads(wish)))
    watch = Watch(board, wish)
    with tempfile.TemporaryDirectory(prefix="alignzoo-workers-") as logs:
        watch.start()
        logging.disable(logging.ERROR)  # we say what matters of what elastic would
        number, found = _run(_config(board, wish, logs), words)
        watch.over.set()
        failure = _cause(board, wish, found, Path(logs)) if found else None
    folder = Path(said) if (said := board.get("folder")) else None
    if failure is not None and failure.code in INTERRUPTED:
        return End(None, failure.code - 128, folder)
    return End(failure, number, folder)


def _run(config: LaunchConfig, words: Sequence[str]) -> tuple[int, ChildFailedError | None]:
    """(the signal that ended the workers, or 0, and what elastic says of failed ones)."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    try:
        elastic_launch(config, sys.executable)("-m", "alignzoo", *words)
    except ChildFailedError as failed:
        return 0, failed
    except SignalException as stop:
        return int(stop.sigval), None
    return 0, None


def _config(board: Board, wish: Wish, logs: str) -> LaunchConfig:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig

    shown = wish.here == 0  # rank 0 alone speaks to the terminal
    quiet = {n: Std.ALL for n in range(1 if shown else 0, wish.processes or 1)}
    heard = [s for s in SIGNALS if signal.getsignal(getattr(signal, s)) != signal.SIG_IGN]
    return LaunchConfig(
        min_nodes=wish.machines,
        max_nodes=wish.machines,
        nproc_per_node=wish.processes or 1,
        run_id="alignzoo",
        rdzv_backend="static",
        rdzv_endpoint=f"{wish.host}:{board.store.port}",  # type: ignore[attr-defined]
        rdzv_configs={"rank": wish.here, "timeout": int(JOINING.total_seconds())},
        max_restarts=0,
        monitor_interval=0.2,
        signals_to_handle=",".join(heard),
        shutdown_timeout=AT_LEISURE,
        logs_specs=DefaultLogsSpecs(log_dir=logs, redirects=quiet),
    )


def _board(wish: Wish) -> Board:
    """The store that all launching processes and workers share; machine 0 keeps it."""
    from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

    keeps = wish.here == 0
    if not keeps:
        print(f"machine {wish.here} joins {wish.address}", file=sys.stderr)
    try:
        store = TCPStore(
            wish.host,
            wish.port,
            is_master=keeps,
            timeout=PATIENCE if keeps else JOINING,
            multi_tenant=True,  # elastic opens it once more in this process
            wait_for_workers=False,
        )
    except (DistError, OSError) as error:
        what = "cannot listen there; is the port taken?" if keeps else "nobody answers there"
        raise UsageError(f"--main-address {wish.address}: {what} ({_line(error)})") from error
    store.set_timeout(PATIENCE)
    return Board(store)


def _agree(board: Board, words: Sequence[str], wish: Wish) -> None:
    """All machines run the same command, and each has a number of its own."""
    from alignzoo import __version__

    mine = {"words": [*words], "processes": wish.processes, "alignzoo": __version__}
    owner = f"{os.uname().nodename} process {os.getpid()}"
    theirs = board.claim(f"machine/{wish.here}", owner)
    if theirs != owner:
        raise UsageError(f"--machine-rank {wish.here} is taken by {theirs}")
    asked = board.claim("asked", mine)
    if asked != mine:
        raise UsageError(f"this machine was asked for {mine}, another one for {asked}")


def _cause(board: Board, wish: Wish, found: ChildFailedError, logs: Path) -> Failure:
    """What made the first worker end: its error, else the signal or silence it ended with."""
    first = board.first()
    if first is not None and first.code >= 0:
        return first
    silent = {n: f.exitcode for n, f in sorted(found.failures.items()) if board.end(n) is None}
    if silent:
        number = first.rank if first and first.rank in silent else next(iter(silent))
        return _unsaid(number, wish, silent[number], logs)
    ends = [end for n in range(wish.world) if (end := board.end(n)) and end.code]
    errors = [end for end in ends if end.code not in INTERRUPTED]
    return first or (errors or ends)[0]


def _unsaid(number: int, wish: Wish, code: int, logs: Path) -> Failure:
    """A worker that ended without a word; the system's out-of-memory killer is a usual reason."""
    how = f"exit status {code}"
    if code < 0:
        how = f"signal {-code}, {signal.Signals(-code).name}"
    last = _last_words(number - wish.here * (wish.processes or 1), logs)
    hint = "; the system may have been out of memory" if code == -signal.SIGKILL else ""
    what = f"worker {number} of {wish.world} was ended by {how}{hint}{last}"
    return Failure(number, f"error: {what}; the same command goes on from what is kept", what)


def _last_words(local: int, logs: Path) -> str:
    for file in sorted(logs.rglob(f"{local}/stderr.log")):
        if lines := file.read_text(errors="replace").strip().splitlines():
            return f"; its last line: {lines[-1][:300]}"
    return ""


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
