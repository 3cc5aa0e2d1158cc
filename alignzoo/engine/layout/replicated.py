"""Every rank holds everything: one process, or several with DDP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout.base import Layout, keys_of
from alignzoo.engine.layout.optim import Optim, build_optimizer, clip_by_role, count, is_count
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.scoring.scorer import ScoringModule


class Replicated(Layout):
    """Weights, gradients and moments whole on every rank; gradients are averaged once a step."""

    together: ClassVar[bool] = False

    def __init__(self, ranks: Ranks, scoring: ScoringModule, optim: Optim) -> None:
        super().__init__(ranks, scoring.to(ranks.device))
        self.optimizer = build_optimizer(optim, self.trained)
        self.module = ranks.wrap(scoring)

    def check(self) -> None:
        """Several ranks are inside DDP, which was given all of them."""
        if self.ranks.size == 1:
            return
        found = getattr(self.module, "process_group", None)
        size = found.size() if found is not None else 1
        if not isinstance(self.module, DistributedDataParallel) or size != self.ranks.size:
            raise TrainingError(
                f"{self.ranks.size} ranks train together, but the model is a "
                f"{type(self.module).__name__} over {size}; their gradients would differ"
            )

    def unsynced(self, last: bool) -> AbstractContextManager[Any]:
        """DDP averages in the backward pass of the last micro-batch."""
        return self.ranks.unsynced(self.module, last)

    def backward(self, value: Tensor) -> None:
        """Add to the gradients."""
        self.ranks.accelerator.backward(value)

    def clip(self, max_norm: float) -> dict[str, Tensor]:
        """Every rank clips the same gradients."""
        return clip_by_role(self.optimizer, max_norm)

    def step(self) -> None:
        """Every rank makes the same update."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def forwards(self, wanted: int) -> int:
        """No forward pass needs the others."""
        return wanted

    @torch.no_grad()
    def load(self, role: str, tensors: Mapping[str, Tensor]) -> None:
        """Copy in place."""
        own = dict(self.scoring.by_role[role].named_parameters())
        for name in tensors:
            own[name].copy_(tensors[name])

    def learnt(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters that learn."""
        yield from ((name, p.detach()) for name, p in self.parameters())

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """What the optimiser holds."""
        for name, p in self.parameters():
            for key, x in self.optimizer.state[p].items():
                yield f"{name}/{key}", torch.as_tensor(x)

    def load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies, each moment where its parameter is, and counts of steps where they are kept."""
        known = keys_of(tensors)
        self.optimizer.state.clear()
        for name, p in self.parameters():
            self.optimizer.state[p] = {
                key: self._beside(tensors[f"{name}/{key}"], p, key) for key in known.get(name, ())
            }

    def _beside(self, x: Tensor, parameter: Tensor, key: str) -> Tensor:
        if is_count(x, parameter, key):
            return count(x, parameter, self.optimizer)
        return x.to(parameter, copy=True)
