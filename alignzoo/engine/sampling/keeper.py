"""Runs a server for as long as its client lives, and leaves nothing of it behind.

    python keeper.py CLIENT FOLDER COMMAND...

A client may be killed without a chance to clean up, and a vLLM server that is killed leaves its
workers. So a process of its own keeps both: it leads a session that holds every process of the
server, sees its client end, ends the session, and removes the shared memory they had and the
folder of the client. When the server ends first, the folder stays until the client has read the
log.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

SHARED = Path("/dev/shm")
LOG = "server.log"
ENDED = "keeper: the server ended"
PERIOD = 0.2  # seconds between two looks at client and server


def members(session: int) -> set[int]:
    """The processes of a session beside its leader."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = file.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.add(int(file.parent.name))
    return found - {session}


def shared_memory(processes: Iterable[int], since: float) -> set[Path]:
    """Files in shared memory that processes use and that are not older than `since`.

    Known by their inodes: a semaphore is mapped under another name than it has.
    """
    used = set()
    for process in processes:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process}/maps").read_text().splitlines()
            used |= {int(line.split()[4]) for line in lines if f" {SHARED}/" in line}
    found = ((file, file.stat()) for file in SHARED.iterdir() if file.is_file())
    return {file for file, facts in found if facts.st_ino in used and facts.st_ctime >= since}


def end(session: int, since: float, left: Iterable[Path] = ()) -> None:
    """Kill every process of a session but its leader, and remove the shared memory they leave."""
    left = {*left, *shared_memory(members(session), since)}
    while found := members(session):
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    for file in left:
        file.unlink(missing_ok=True)


def keep(client: int, folder: Path, command: list[str]) -> None:
    """Run the command until it ends, its client ends, or SIGTERM asks for it."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    born, session, left, looked = time.time() - 1, os.getpid(), set[Path](), 0.0

    def wanted() -> bool:
        return os.getppid() == client and not asked

    with (folder / LOG).open("ab") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while wanted() and server.poll() is None:
            if time.monotonic() - looked > 5:  # a killed process no longer says what it had
                left, looked = left | shared_memory(members(session), born), time.monotonic()
            time.sleep(PERIOD)
        end(session, born, left)
        log.write(f"{ENDED} with exit status {server.wait()}\n".encode())
    while wanted():
        time.sleep(PERIOD)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    keep(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
