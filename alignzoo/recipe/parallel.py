"""How the work of training lies over processes: decides memory and time, never a result."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from alignzoo.recipe.spec import Spec

Strategy: TypeAlias = Literal["ddp", "fsdp2", "zero2", "zero3"]

WITHOUT_ADAPTERS = ("zero2", "zero3")  # DeepSpeed has not been tried with them


class ParallelSpec(Spec):
    """What each process holds of the models of a train stage."""

    strategy: Strategy = Field(
        "ddp",
        description="ddp: everything; fsdp2, zero3: a slice of weights, gradients and moments; "
        "zero2: all weights, a slice of gradients and moments",
    )
