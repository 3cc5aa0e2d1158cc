"""The launching process: it starts this machine's workers, watches them, and ends them together.

Workers come from `torch.distributed.launcher.api.elastic_launch` with its static rendezvous: the
one that keeps to the machine numbers that were given, so that rank 0, which writes, is where it
was asked for. A thread beside it watches what elastic does not: stopped workers, other machines,
and who failed first.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.contract.errors import AlignzooError, UsageError
from alignzoo.launch.board import PATIENCE, RESUMES, Board, Failure
from alignzoo.launch.watch import INTERRUPTED, Watch
from alignzoo.launch.wish import Wish
from alignzoo.launch.worker import LAUNCHED
from alignzoo.store.runs import locked

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig

LOGS = "alignzoo-workers-"
YOUNG = 60  # seconds in which a folder may not be locked yet by its owner
JOINING = 300  # seconds for the other machines
PARTING = 15  # seconds for them to read how it ended
AT_LEISURE = 7 * 24 * 3600  # seconds to save after Ctrl-C; the second one does not wait
SIGNALS = ("SIGINT", "SIGTERM")


@dataclass(frozen=True)
class End:
    """How a launch ended: by itself, by a signal, or with the failure that came first."""

    failure: Failure | None
    signal: int = 0  # that this process got, or a worker alone; 0 is none
    folder: Path | None = None  # of the run, where a worker said so


def launch(words: Sequence[str], wish: Wish) -> End:
    """Run `alignzoo WORDS` on every worker of this machine until all have ended.

    SIGINT and SIGTERM are handed on to the workers, which keep what they have. Raises UsageError
    when the machines cannot meet.
    """
    board = _board(wish)
    _meet(board, words, wish)
    os.environ[LAUNCHED] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(wish.threads))
    logging.disable(logging.ERROR)  # we say what matters of what elastic would
    watch = Watch(board, wish)
    with _logs() as logs:
        watch.start()
        number, found = _run(_config(board, wish, logs), words)
        watch.over.set()
        try:
            end = _end(board, wish, number, _cause(board, wish, found, Path(logs)))
            _part(board, wish)
        except RuntimeError:
            lost = f"machine 0, at {wish.address}, does not answer any more"
            end = End(Failure(0, f"error: {lost}", lost) if found else None, number)
    return end


@contextmanager
def _logs() -> Iterator[str]:
    """A folder for what quiet workers print. One whose owner was killed is removed here."""
    for left in Path(tempfile.gettempdir()).glob(f"{LOGS}*"):
        with suppress(OSError, AlignzooError):
            if time.time() - left.stat().st_mtime > YOUNG:
                with locked(left):
                    shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=LOGS) as logs, locked(Path(logs)):
        yield logs


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
    quiet = {n: Std.ALL for n in range(int(shown), len(wish.local))}
    heard = [s for s in SIGNALS if signal.getsignal(getattr(signal, s)) != signal.SIG_IGN]
    return LaunchConfig(
        min_nodes=wish.machines,
        max_nodes=wish.machines,
        nproc_per_node=len(wish.local),
        run_id="alignzoo",
        rdzv_backend="static",
        rdzv_endpoint=f"{wish.host}:{board.store.port}",  # type: ignore[attr-defined]
        rdzv_configs={"rank": wish.here, "timeout": JOINING},
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
    try:
        store = TCPStore(
            wish.host,
            wish.port,
            is_master=keeps,
            timeout=timedelta(seconds=JOINING),
            multi_tenant=True,  # elastic opens it once more in this process
            wait_for_workers=False,
        )
    except (DistError, OSError) as error:
        why = str(error).strip().splitlines()[0]
        what = "this machine cannot listen there; is the port taken?" if keeps else "no answer"
        raise UsageError(f"--main-address {wish.address}: {what} ({why})") from error
    store.set_timeout(PATIENCE)
    return Board(store)


def _meet(board: Board, words: Sequence[str], wish: Wish) -> None:
    """All machines run the same command, and each has a number of its own."""
    from alignzoo import __version__

    mine: dict[str, Any] = {"command": [*words], "version": __version__}
    mine |= {"--processes": wish.processes, "--machines": wish.machines}
    asked = board.claim("asked", mine)
    if asked != mine:
        odd = next(key for key in mine if mine[key] != asked.get(key))
        raise UsageError(
            f"machine {wish.here} has the {odd} {mine[odd]}, another one {asked.get(odd)}; start "
            "the same command on all, but for --machine-rank"
        )
    owner = f"process {os.getpid()} on {os.uname().nodename}"
    theirs = board.claim(f"machine {wish.here}", owner)
    if theirs != owner:
        raise UsageError(f"--machine-rank {wish.here} is taken by {theirs}")
    _wait(board, [f"machine {n}" for n in range(wish.machines)], JOINING)


def _part(board: Board, wish: Wish) -> None:
    """The store must outlive the machines that read how the run ended."""
    board.put(f"the end of machine {wish.here}", True)
    if wish.here == 0:
        with suppress(UsageError):
            _wait(board, [f"the end of machine {n}" for n in range(wish.machines)], PARTING)


def _wait(board: Board, keys: Sequence[str], seconds: int) -> None:
    for second in range(seconds):
        missing = [key for key in keys if board.get(key) is None]
        if not missing:
            return
        if second == 5 and seconds == JOINING:
            print(f"waiting for {', '.join(missing)}", file=sys.stderr)
        time.sleep(1.0 if second else 0.1)
    raise UsageError(f"{', '.join(missing)} did not come within {seconds} s")


def _end(board: Board, wish: Wish, number: int, failure: Failure | None) -> End:
    folder = Path(said) if (said := board.get("folder")) else None
    if failure is not None and failure.code in INTERRUPTED:
        return End(None, failure.code - 128, folder)
    return End(failure, number, folder)


def _cause(board: Board, wish: Wish, found: ChildFailedError | None, logs: Path) -> Failure | None:
    """What made the first worker end: its error, else the signal or silence it ended with."""
    first = board.first()
    if found is None or (first is not None and first.code >= 0):
        return first if found else None
    silent = {n: f.exitcode for n, f in sorted(found.failures.items()) if board.end(n) is None}
    if silent:
        number = first.rank if first and first.rank in silent else next(iter(silent))
        failure = _unsaid(number, wish, silent[number], logs)
        said = Failure(**board.claim("first", asdict(failure)))  # for the other machines
        return failure if said.rank == number else said
    return first or _lost(board, wish)


def _lost(board: Board, wish: Wish) -> Failure:
    """Where all that is known here are symptoms: what other machines say, or who went away."""
    for _ in range(PARTING):
        ends = {n: board.end(n) for n in range(wish.world)}
        if (first := board.first()) or all(ends.values()):
            break
        time.sleep(1.0)
    if first is not None:
        return first
    gone = next((n for n, end in ends.items() if end is None), None)
    if gone is not None:
        what = f"worker {gone} of {wish.world} was lost with its machine"
        return Failure(gone, f"error: {what}; {RESUMES}", what)
    bad = [end for end in ends.values() if end and end.code]
    return next((end for end in bad if end.code not in INTERRUPTED), bad[0])


def _unsaid(number: int, wish: Wish, code: int, logs: Path) -> Failure:
    """A worker that ended without a word; the system's out-of-memory killer is a usual reason."""
    how = f"exit status {code}" if code > 0 else f"signal {-code}, {signal.Signals(-code).name}"
    what = f"worker {number} of {wish.world} was ended by {how}"
    if code == -signal.SIGKILL:
        what += " (the system kills what takes too much memory)"
    for file in logs.rglob(f"{wish.local.index(number)}/stderr.log"):
        if lines := file.read_text(errors="replace").strip().splitlines():
            what += f"; its last line: {lines[-1][:300]}"
    return Failure(number, f"error: {what}; {RESUMES}", what)
