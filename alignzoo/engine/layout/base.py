"""What the loop may ask of a layout, whatever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.engine.models.adapters import plain_weights
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.scoring.scorer import ScoringModule

T = TypeVar("T")


@dataclass(frozen=True)
class Turn(Generic[T]):
    """One forward pass of a rank."""

    part: T
    counts: bool  # False: only so that the others need not wait
    last: bool


class Layout(ABC):
    """The models of a stage on the ranks, and the optimiser of those that learn.

    The only object that knows the strategy. Methods marked *collective* are called by every rank,
    in the same order, and their iterators are exhausted: the others wait in each step of them.
    """

    together: ClassVar[bool]  # ranks wait for each other in a forward or a backward pass
    module: nn.Module  # what a training step calls
    optimizer: torch.optim.Optimizer

    def __init__(self, ranks: Ranks, scoring: ScoringModule) -> None:
        self.ranks = ranks
        self.scoring = scoring  # for passes without gradient
        self.trained = {role: scoring.by_role[role] for role in sorted(scoring.trainable)}

    @abstractmethod
    def check(self) -> None:
        """Raise TrainingError unless what was asked for is what runs. Collective."""

    @abstractmethod
    def unsynced(self, last: bool) -> AbstractContextManager[Any]:
        """Around a micro-batch: where it can be, only a step's last one exchanges gradients."""

    @abstractmethod
    def backward(self, value: Tensor) -> None:
        """Gradients of a rank's share of the loss times the number of ranks; collective."""

    @abstractmethod
    def clip(self, max_norm: float) -> dict[str, Tensor]:
        """Clip the gradient norm of each role; {role: norm [] before clipping}. Collective."""

    @abstractmethod
    def step(self) -> None:
        """One update with the present gradients, which are gone after it. Collective."""

    @abstractmethod
    def forwards(self, wanted: int) -> int:
        """How many forward passes a rank makes that wants so many. Collective."""

    def whole(self, role: str) -> Iterator[tuple[str, Tensor]]:
        """Every parameter of a role, whole, one at a time. Collective."""
        yield from self.scoring.by_role[role].named_parameters()

    def plain(self, role: str, device: torch.device) -> PreTrainedModel:
        """A role as a model of its own with its present weights. Collective.

        Where no weight is sliced it is the very model; else a copy that later steps do not change.
        """
        return self.scoring.by_role[role]

    def copied(self, role: str) -> int:
        """Bytes that `plain` takes anew on every rank."""
        return 0

    def result(self, role: str) -> PreTrainedModel | None:
        """What `plain` gives, on the CPU if it is a copy, for the rank that writes it; None on the
        others, which gather the weights with it and keep none of them. Collective.
        """
        if self.ranks.is_main:
            return self.plain(role, torch.device("cpu"))
        for _ in self.whole(role):
            pass
        return None

    @torch.no_grad()
    def follow(self, role: str, of: str, mix: float) -> None:
        """Move a role's weights: w <- w + mix (w_of - w), w_of with its adapter. Collective."""
        targets = plain_weights(self.scoring.by_role[of], self.whole(of))
        for (name, own), (_, target) in zip(self.whole(role), targets, strict=True):
            self.load(role, {name: own.lerp(target.to(own), mix)})

    @abstractmethod
    def load(self, role: str, tensors: Mapping[str, Tensor]) -> None:
        """Replace parameters of a role by whole tensors. Collective."""

    @abstractmethod
    def learnt(self) -> Iterator[tuple[str, Tensor]]:
        """("role/parameter", whole) of everything that learns, tied ones once. Collective."""

    def changed(self) -> Iterator[tuple[str, Tensor]]:
        """What learns, and all weights of the roles that follow it. Collective."""
        yield from self.learnt()
        for role in self.scoring.special.moving:
            yield from ((f"{role}/{name}", x.detach()) for name, x in self.whole(role))

    @abstractmethod
    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """("role/parameter/key", whole) of the optimiser's state. Collective."""

    @abstractmethod
    def load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace the optimiser's state by whole tensors. Collective."""

    def turns(self, parts: Sequence[T]) -> Iterator[Turn[T]]:
        """The parts, as often as every rank makes forward passes: the last one is made again."""
        n = self.forwards(len(parts))
        for k in range(n):
            yield Turn(parts[min(k, len(parts) - 1)], k < len(parts), k == n - 1)

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """("role/parameter", itself) of everything that learns, tied ones once."""
        return [
            (f"{role}/{name}", p)
            for role, model in self.trained.items()
            for name, p in model.named_parameters()
            if p.requires_grad
        ]


def keys_of(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """{"role/parameter": the keys of its moments}."""
    found: dict[str, list[str]] = {}
    for full in tensors:
        name, _, key = full.rpartition("/")
        found.setdefault(name, []).append(key)
    return found
