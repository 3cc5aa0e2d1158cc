"""A server of another program that ends with this process, however that ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignzoo.engine.sampling import keeper

MILD = re.compile(r"\b(DEBUG|INFO|WARNING)\b")  # lines that may name an error that was none
CAUSE = re.compile(r"\b\w+(Error|Exception): .*?(?=\)?$)")


@dataclass(frozen=True)
class KeptServer:
    """A process in a session of its own, and the keeper that ends it; see `keeper.py`.

    Its folder goes with it. `log` in that folder has all that it prints.
    """

    log: Path
    keeper: subprocess.Popen[bytes]
    born: float

    @staticmethod
    def start(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> KeptServer:
        """Run a command; a command that cannot be run ends at once and says why in the log."""
        log, born = folder / keeper.LOG, time.time() - 1
        words = [sys.executable, keeper.__file__, str(os.getpid()), str(folder), *command]
        with log.open("wb") as out:
            process = subprocess.Popen(
                words,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C is for this process, which ends the other
            )
        return KeptServer(log, process, born)

    @property
    def ended(self) -> bool:
        """Whether the server, or its keeper, is no more."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return self.keeper.poll() is not None or keeper.ENDED in text

    @property
    def printed(self) -> int:
        """The length of its log in bytes."""
        return self.log.stat().st_size

    def said(self, since: int) -> str:
        """What the log says of a fault from an offset on: the first error, and how it ended."""
        time.sleep(5 * keeper.PERIOD)  # the keeper looks from time to time
        lines = self.log.read_bytes()[since:].decode(errors="replace").splitlines()
        causes = [found[0] for line in lines if (found := _cause(line))]
        ended = [line for line in lines if line.startswith(keeper.ENDED)]
        said = [*causes[:1], *ended] or [line for line in lines if line.strip()][-1:]
        return " | ".join(line[:300] for line in said) or "nothing"

    def close(self) -> None:
        """End it, and remove its folder and the shared memory it has left."""
        self.keeper.terminate()
        self.keeper.wait()
        keeper.end(self.keeper.pid, self.born)  # the keeper itself may have been killed
        shutil.rmtree(self.log.parent, ignore_errors=True)


def _cause(line: str) -> re.Match[str] | None:
    return None if MILD.search(line) else CAUSE.search(line)
