"""Which process writes, and how one leaves the others. Alone, torch is not loaded."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def is_main() -> bool:
    """Whether this process is rank 0, the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def leave() -> None:
    """End this process's part in the group; without it torch may abort when the process ends."""
    distributed = sys.modules.get("torch.distributed")  # a sharded stage alone has a group too
    if distributed and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def end(code: int) -> NoReturn:
    """Leave, and end one of several processes without the interpreter's own end but tidied up.

    A group has threads as long as anything owns it, and a default argument of torch, caches of
    DTensor and DeepSpeed own it for ever. If one of them still holds a tensor when the interpreter
    ends, it waits for a lock that is no more, and the process aborts after all work is done.
    """
    leave()
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads any more
            stream.flush()
    os._exit(code)
