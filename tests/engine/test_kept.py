"""A kept server leaves no process and no shared memory, whatever is killed."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignzoo import KeptServer
from alignzoo.engine.sampling import keeper
from alignzoo.engine.sampling.keeper import SHARED, members

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="this system has no /dev/shm")

# As vLLM is built: a server, a worker of it that nobody ends, shared memory and a semaphore.
SERVER = """
import multiprocessing as mp, sys, time
from multiprocessing.shared_memory import SharedMemory

def work(held, name):
    other = SharedMemory(name=name)
    time.sleep(600)

if __name__ == "__main__":
    held, memory = mp.get_context("spawn").Semaphore(1), SharedMemory(create=True, size=4096)
    mp.get_context("spawn").Process(target=work, args=(held, memory.name)).start()
    print("ready", memory.name, flush=True)
    time.sleep(600)
"""
CLIENT = """
import os, sys, time
from pathlib import Path
from alignzoo import KeptServer
kept = KeptServer.start([sys.executable, sys.argv[2]], Path(sys.argv[1]), os.environ)
print(kept.keeper.pid, flush=True)
time.sleep(600)
"""


def soon(condition, seconds=20):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "kept"
    path.mkdir()
    return path


def ready(folder, session):
    """The name of the shared memory, once all four processes of the server are there."""
    log = folder / "server.log"
    assert soon(lambda: log.exists() and "ready" in log.read_text())
    assert soon(lambda: len(members(session)) >= 3)  # server, worker, Python's resource tracker
    time.sleep(1)  # the worker holds the memory too
    return SHARED / log.read_text().split()[1]


def nothing_left(session, memory):
    return soon(lambda: not members(session) and not memory.exists())


def test_a_client_that_is_killed_leaves_nothing(script, folder):
    before = set(SHARED.iterdir())
    command = [sys.executable, "-c", CLIENT, str(folder), str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        session = int(client.stdout.readline())
        memory = ready(folder, session)
        made = {x for x in SHARED.iterdir() if x.name.startswith("sem.mp-")} - before
        assert memory.exists()
        assert made
        client.send_signal(signal.SIGKILL)
    assert nothing_left(session, memory)
    assert soon(lambda: not folder.exists())
    assert not [x for x in made if x.exists()]


def test_a_closed_server_leaves_nothing(script, folder):
    kept = KeptServer.start([sys.executable, str(script)], folder, os.environ)
    memory = ready(folder, kept.keeper.pid)
    kept.close()
    assert not members(kept.keeper.pid)
    assert not memory.exists()
    assert not folder.exists()


def test_a_server_that_is_killed_takes_its_workers_along_and_leaves_its_log(script, folder):
    kept = KeptServer.start([sys.executable, str(script)], folder, os.environ)
    try:
        memory = ready(folder, kept.keeper.pid)
        since = kept.printed
        os.kill(min(members(kept.keeper.pid)), signal.SIGKILL)
        assert nothing_left(kept.keeper.pid, memory)
        assert soon(lambda: kept.ended)
        assert kept.said(since) == "keeper: the server ended with exit status -9"
    finally:
        kept.close()
    assert not folder.exists()


def test_a_keeper_that_is_killed_is_stood_in_for_by_its_client(script, folder):
    kept = KeptServer.start([sys.executable, str(script)], folder, os.environ)
    memory = ready(folder, kept.keeper.pid)
    os.kill(kept.keeper.pid, signal.SIGKILL)
    assert soon(lambda: kept.ended)
    kept.close()
    assert nothing_left(kept.keeper.pid, memory)
    assert not folder.exists()


def test_the_first_error_in_the_log_is_the_cause(folder):
    mild = "WARNING 11-26 this can cause errors like OSError: [Errno 24] Too many open files"
    code = f"print('{mild}\\nValueError: too small', flush=True); raise RuntimeError('see above')"
    kept = KeptServer.start([sys.executable, "-c", code], folder, os.environ)
    try:
        assert soon(lambda: kept.ended)
        cause = "ValueError: too small | keeper: the server ended with exit status 1"
        assert kept.said(0) == cause
        assert kept.said(kept.printed) == "nothing"
    finally:
        kept.close()


def test_the_keeper_needs_nothing_but_python():
    nodes = list(ast.walk(ast.parse(Path(keeper.__file__).read_text())))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in found} <= sys.stdlib_module_names
