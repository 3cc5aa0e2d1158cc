"""Accelerate: one process or several with DDP; what is engaged is asserted, never assumed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from alignzoo.contract.errors import TrainingError
from alignzoo.engine.parallel.environment import refuse_unheeded

T = TypeVar("T")
SUPPORTED = {
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
}


@dataclass(frozen=True)
class Ranks:
    """The group of processes a stage runs on.

    A rank without items of its own is idle: it takes part in every exchange, as the others wait
    for it, and adds nothing to sums, means and gradients.
    """

    accelerator: Accelerator
    idle: bool = False

    @property
    def rank(self) -> int:
        """Number of this process."""
        return int(self.accelerator.process_index)

    @property
    def size(self) -> int:
        """Number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def device(self) -> torch.device:
        """Where tensors live."""
        return cast(torch.device, self.accelerator.device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    def loss_scale(self) -> int:
        """Factor of this rank's loss: DDP averages gradients over ranks."""
        return 0 if self.idle else self.size

    def sum(self, x: Tensor) -> Tensor:
        """Sum over ranks."""
        x = torch.zeros_like(x) if self.idle else x
        if self.size == 1:
            return x
        there = self.accelerator.reduce(x.to(self.device), reduction="sum")
        return cast(Tensor, there).to(x.device)

    def max(self, x: Tensor) -> Tensor:
        """Elementwise maximum over ranks."""
        x = torch.full_like(x, -torch.inf) if self.idle else x
        if self.size == 1:
            return x
        stacked = self.accelerator.gather(x.to(self.device)[None])
        return cast(Tensor, stacked).amax(0).to(x.device)

    def mean(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mean of x where mask, over all ranks."""
        total, count = x.masked_fill(~mask, 0.0).sum().double(), mask.sum().double()
        pair = self.sum(torch.stack([total, count]))
        return (pair[0] / pair[1].clamp(min=1)).to(x)

    def means(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """The mean of each [n] over all ranks, in float32, in one exchange; 0 over nothing.

        Every rank has the same names.
        """
        own = [[x.sum().item(), x.numel()] for x in values.values()]
        whole = self.sum(torch.tensor(own, dtype=torch.float64)).tolist()
        found = torch.tensor([total / max(count, 1.0) for total, count in whole])
        return dict(zip(values, found.tolist(), strict=True))

    def resting(self, idle: bool) -> Ranks:
        """The same group, in which this rank is idle or is not."""
        return self if idle == self.idle else replace(self, idle=idle)

    def union(self, names: Sequence[str]) -> list[str]:
        """Every name that some rank has, in the same order everywhere."""
        if self.size == 1:
            return list(names)
        return list(dict.fromkeys(gather_object(list(names))))

    def first(self, found: T | None) -> T | None:
        """What the first rank has that has something, on every rank; what an idle one has is lent
        and does not count.
        """
        mine = None if self.idle else found
        every = [mine] if self.size == 1 else gather_object([mine])
        return next((x for x in every if x is not None), None)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module on the device, inside DDP when there are several ranks."""
        wrapped = cast(nn.Module, self.accelerator.prepare(module))
        if self.size > 1 and not isinstance(wrapped, nn.parallel.DistributedDataParallel):
            raise TrainingError(f"{self.size} ranks, but the model is a {type(wrapped).__name__}")
        return wrapped

    def unsynced(self, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Only the last micro-batch of a step exchanges gradients."""
        context = nullcontext() if last or self.size == 1 else self.accelerator.no_sync(module)
        return cast(AbstractContextManager[Any], context)

    def attention(self) -> AbstractContextManager[Any]:
        """How attention is computed, in a whole stage: see `steady_attention`."""
        mixed = self.accelerator.mixed_precision == "bf16"
        return steady_attention(self.device.type) if mixed else nullcontext()

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 arithmetic in the bodies when the recipe says so."""
        return cast(AbstractContextManager[Any], self.accelerator.autocast())

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.size > 1:
            self.accelerator.wait_for_everyone()


def steady_attention(device: str) -> AbstractContextManager[Any]:
    """Attention whose bf16 rounding does not depend on a row's padding.

    That of the fused CPU kernel does, so a policy would differ from its equal reference, which is
    scored beside other rows. On accelerators the fused kernels stay: plain ones cost too much.
    """
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()


@contextmanager
def arithmetic(precision: str, device: str) -> Iterator[None]:
    """How models compute outside training: as in it, with float32 weights."""
    if precision != "bf16":
        yield
        return
    with steady_attention(device), torch.autocast(device, torch.bfloat16):
        yield


def start_ranks(precision: str) -> Ranks:
    """Join the group that `run --processes`, torchrun, srun or `accelerate launch` started.

    Raises TrainingError when several processes were started but are not one group, UsageError
    when the environment asks for what this engine would not do.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    refuse_unheeded(os.environ, precision, gpus)
    mixed = "bf16" if precision == "bf16" else "no"
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=mixed)
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != expected:
        raise TrainingError(
            f"{expected} processes were started, but Accelerate sees {accelerator.num_processes}; "
            "start them with `alignzoo run RECIPE --processes N`"
        )
    if accelerator.distributed_type not in SUPPORTED:
        raise TrainingError(
            f"Accelerate is configured for {accelerator.distributed_type.value}; "
            "this version trains on one process or with DDP"
        )
    return Ranks(accelerator)
