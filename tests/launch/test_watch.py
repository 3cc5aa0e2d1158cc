"""Who is taken for stopped, lost or stuck: a real store and real processes, looked at in haste."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict

import pytest
from torch.distributed import TCPStore

from alignzoo.launch.board import Board, Failure
from alignzoo.launch.supervise import YOUNG, _logs
from alignzoo.launch.watch import GRACE, SILENT, STOPPED, STUCK, Watch, state_of
from alignzoo.launch.wish import Wish
from alignzoo.launch.worker import _only_lost
from alignzoo.store.runs import locked

TWO = Wish(2)
ERROR = Failure(1, "error: no food", "DataError: no food")


@pytest.fixture
def board():
    return Board(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))


@pytest.fixture
def workers(board):
    """Two processes that know nothing of us, in the place of workers."""
    both = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    for number, process in enumerate(both):
        board.put(f"pid/{number}", process.pid)
    yield both
    for process in both:
        process.kill()
        process.wait()


def look(watch, times):
    for _ in range(times):
        watch._look()


def test_the_error_that_was_told_first_is_the_cause_whatever_comes_later(board):
    assert board.first() is None
    assert board.tell(ERROR)
    assert not board.tell(Failure(0, "error: no fox", "DataError: no fox"))
    assert board.first() == ERROR


def test_a_lost_connection_is_never_the_cause(board):
    symptom = Failure(0, "error: reset", "RuntimeError: reset by peer", symptom=True)
    assert not board.tell(symptom)
    assert board.first() is None
    assert board.end(0) == symptom


def test_an_error_that_follows_from_a_lost_connection_is_one_of_these():
    lost = RuntimeError("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    assert _only_lost(lost)
    try:
        try:
            raise lost
        except RuntimeError:
            raise ValueError("a plug-in gave up")  # noqa: B904
    except ValueError as error:
        assert _only_lost(error)
    assert not _only_lost(ValueError("Connection closed by peer"))
    assert not _only_lost(RuntimeError("size mismatch"))


def test_a_stopped_worker_is_ended_and_named(board, workers):
    watch = Watch(board, TWO)
    os.kill(workers[1].pid, signal.SIGSTOP)
    while state_of(workers[1].pid) != "T":
        time.sleep(0.01)
    look(watch, STOPPED - 1)
    assert board.first() is None
    look(watch, 1)
    assert board.first().rank == 1
    assert "worker 1 of 2 has been stopped (SIGSTOP)" in board.first().text
    assert workers[1].wait(5) == -signal.SIGKILL
    assert workers[0].poll() is None


def test_a_worker_that_runs_and_says_nothing_is_left_alone(board, workers):
    look(Watch(board, TWO), 3 * STOPPED)
    assert board.first() is None
    assert [process.poll() for process in workers] == [None, None]


def test_after_a_failure_the_others_have_some_seconds_to_end_by_themselves(board, workers):
    watch = Watch(board, TWO)
    board.tell(ERROR)
    look(watch, GRACE)
    assert workers[0].poll() is None
    look(watch, 1)
    assert workers[0].wait(5) == -signal.SIGKILL
    assert board.first() == ERROR


def test_a_worker_that_is_gone_without_a_word_is_named(board, workers):
    workers[0].kill()
    while state_of(workers[0].pid):
        time.sleep(0.01)
    look(Watch(board, TWO), 1)
    assert "worker 0 of 2 was killed or crashed" in board.first().text


def test_a_worker_that_said_its_end_is_not_missed(board, workers):
    board.put("end/0", asdict(Failure(0, "", "", 0, symptom=True)))
    workers[0].kill()
    workers[0].wait()
    look(Watch(board, TWO), GRACE + 2)
    assert board.first() is None
    assert workers[1].poll() is None


def test_a_long_wait_is_said_once_with_the_worker_and_ends_nothing(board, workers, capfd):
    watch = Watch(board, TWO)
    board.put("waited/0", [61.0, 61.0])
    board.put("waited/1", [0.0, 0.0])
    look(watch, 3)
    assert capfd.readouterr().err == "waiting for worker 1 since 61 s\n"
    board.put("waited/0", [86400.0, 86400.0])  # a judge may take days
    look(watch, 3)
    assert board.first() is None


@pytest.mark.parametrize(
    ("still", "ends"),
    [((STUCK + 1, STUCK + 1), True), ((0.0, 0.0), False), ((STUCK + 1, 2.0), False)],
)
def test_workers_that_all_wait_for_each_other_are_ended_unless_they_compute_or_transfer(
    board, workers, still, ends
):
    for number in range(2):
        board.put(f"waited/{number}", [STUCK + 1, still[number]])
    look(Watch(board, TWO), 1)
    assert (board.first() is not None) == ends


BEATS = """
import hashlib, os, sys, threading, time
from torch import distributed
from alignzoo.launch.board import Board
from alignzoo.launch.worker import _beat
board = Board(distributed.TCPStore("127.0.0.1", int(sys.argv[1]), is_master=False))
threading.Thread(target=_beat, args=(board, threading.Event()), daemon=True).start()
if sys.argv[2] == "transfers":  # another thread takes the processor, as one that copies tensors
    work = lambda: [hashlib.sha256(bytes(10**6)).digest() for _ in range(10**6)]
    threading.Thread(target=work, daemon=True).start()
distributed.TCPStore("127.0.0.1", int(sys.argv[1]), is_master=False).wait(["nothing"])
"""


def test_what_a_killed_launching_process_left_is_removed_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, working, young, other = (
        tmp_path / name
        for name in ("alignzoo-workers-a", "alignzoo-workers-b", "alignzoo-workers-c", "workers-d")
    )
    for place in (left, working, young, other):
        (place / "0").mkdir(parents=True)
        (place / "0" / "stderr.log").touch()
    with locked(working):
        for place in (left, working, other):
            os.utime(place, (time.time() - 2 * YOUNG,) * 2)
        with _logs() as logs:
            assert {path.name for path in tmp_path.iterdir()} == {
                working.name, young.name, other.name, os.path.basename(logs)
            }  # fmt: skip
    assert not os.path.exists(logs)


@pytest.mark.parametrize("does", ["nothing", "transfers"])
def test_a_wait_in_which_tensors_are_transferred_is_told_from_one_in_which_nothing_moves(
    board, monkeypatch, tmp_path, does
):
    place = tmp_path / "torch" / "distributed"  # where the calls stand that wait for others
    place.mkdir(parents=True)
    (place / "waiting.py").write_text(BEATS)
    command = [sys.executable, place / "waiting.py", str(board.store.port), does]
    with subprocess.Popen([*map(str, command)]) as worker:
        until = time.monotonic() + 60
        while (told := board.get("waited/0") or (0.0, 0.0))[0] < 4 and time.monotonic() < until:
            time.sleep(0.1)
        worker.kill()
    waited, still = told
    assert waited >= 4
    assert still == pytest.approx(waited, abs=1.5) if does == "nothing" else still < 1


def test_another_machine_that_says_nothing_new_is_named(board):
    watch = Watch(board, Wish(1, 2, 0, "head:1"))
    board.put("beat/1", 7)
    look(watch, SILENT)
    assert board.first() is None
    look(watch, 2)
    assert "machine 1 has not answered" in board.first().text
    assert board.first().rank == 1
