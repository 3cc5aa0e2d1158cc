"""Which process writes, and how one leaves the others. Alone, torch is not loaded."""

from __future__ import annotations

import os


def is_main() -> bool:
    """Whether this process is rank 0, the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def leave() -> None:
    """End this process's part in the group; without it torch may abort when the process ends."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
