"""The layout that a recipe asks for; what is engaged is asserted, never assumed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import distributed

from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout.base import Layout
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.layout.replicated import Replicated
from alignzoo.engine.layout.sharded import Sharded
from alignzoo.engine.layout.zero import Zero2, Zero3, check_deepspeed
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.scoring.scorer import ScoringModule

Build = Callable[[Ranks, ScoringModule, Optim], Layout]
LAYOUTS: Mapping[str, Build] = {
    "ddp": Replicated,
    "fsdp2": Sharded,
    "zero2": Zero2,
    "zero3": Zero3,
}


def check_strategy(strategy: str) -> None:
    """Raises TrainingError when a strategy cannot be had on this machine."""
    if strategy.startswith("zero"):
        check_deepspeed(f"parallel.strategy: {strategy}")


def build_layout(ranks: Ranks, module: ScoringModule, optim: Optim, strategy: str) -> Layout:
    """Spread the models of a stage over the ranks; collective.

    Raises TrainingError when the strategy cannot be had for these models, or is not what runs.
    """
    check_strategy(strategy)
    build = LAYOUTS[strategy]
    if build is not Replicated:
        gc.collect()  # what wrappers of an earlier stage hold lies in circles
        _join(ranks)
    layout = build(ranks, module, optim)
    layout.check()
    return layout


def _join(ranks: Ranks) -> None:
    """A group of processes, of one where there is only one; wrappers need it."""
    if not distributed.is_initialized():
        kind = "nccl" if ranks.device.type == "cuda" else "gloo"
        distributed.init_process_group(
            kind, store=cast(Any, distributed).HashStore(), rank=ranks.rank, world_size=ranks.size
        )
    found = distributed.get_world_size()
    if found != ranks.size:
        raise TrainingError(
            f"{ranks.size} processes train together, but torch.distributed joins {found}; start "
            "them with one launcher"
        )
