"""What SIGINT and SIGTERM do to a command, whatever it is doing."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alignzoo.contract.errors import Interrupted
from alignzoo.engine.parallel.agreement import is_main
from alignzoo.launch.worker import launched

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AT_ONCE = b"\nstopped at once; the same command goes on from what is kept\n"


@contextmanager
def before_work() -> Iterator[None]:
    """Say how to go on when a command is stopped while it is still getting ready."""
    try:
        yield
    except KeyboardInterrupt:
        if not speaks():
            raise
        words = [word for word in sys.argv[1:] if word != "--fresh"]
        again = shlex.join(["alignzoo", *words])
        print(f"\nstopped before any work; `{again}` again begins it", file=sys.stderr)
        raise


def speaks() -> bool:
    """Whether this process is the one of several that a person hears."""
    return is_main() and not launched()


@dataclass
class Stopping:
    """The signal that a command got; 0 is none."""

    number: int = 0


@contextmanager
def stoppable() -> Iterator[Stopping]:
    """The first signal unwinds the command, which keeps what it has; the next ends it at once.

    A training stage takes the first one itself, to save between two buffers. What is on disk is
    whole at every moment, so either end leaves a folder that can go on.
    """
    stopping = Stopping()

    def stop(number: int, frame: Any) -> None:
        if stopping.number:
            if speaks():
                os.write(2, AT_ONCE)
            os._exit(128 + number)
        stopping.number = number
        raise Interrupted(number)

    # A shell lets its background jobs ignore SIGINT, and that is to stay so.
    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
