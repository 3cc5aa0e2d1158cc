"""Which process writes, and how all of them learn what it decided. Alone, torch is not loaded."""

from __future__ import annotations

import os
from datetime import timedelta


def is_main() -> bool:
    """Whether this process is rank 0, the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def agreed(mine: bool) -> bool:
    """Rank 0's answer, on every rank; also the place where ranks wait for each other."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return mine
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    # Rank 0 may sample for hours while the others wait here.
    PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    return bool(broadcast_object_list([mine])[0])


def leave() -> None:
    """End this process's part in the group; without it torch may abort when the process ends."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
