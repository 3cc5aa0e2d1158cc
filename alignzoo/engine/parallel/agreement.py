"""Which process writes, and how one leaves the others. Alone, torch is not loaded."""

from __future__ import annotations

import os
import sys


def is_main() -> bool:
    """Whether this process is rank 0, the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def leave() -> None:
    """End this process's part in the group; without it torch may abort when the process ends."""
    distributed = sys.modules.get("torch.distributed")  # a sharded stage alone has a group too
    if distributed and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
