"""Where the buffers of a training stage come from: a data set, or the policy's own samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.contract.errors import DataError, TrainingError
from alignzoo.contract.rollout import (
    Completion,
    RolloutEngine,
    RolloutSession,
    Sampling,
    sample_key,
)
from alignzoo.contract.types import Batch, Item, RolloutBatch, Signal, Tokens
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.scoring.snapshots import Stored
from alignzoo.engine.train.batches import optimiser_batches, share_of_rank
from alignzoo.engine.train.optim import Optim
from alignzoo.ops import log_prob

ROLLOUT_LOG_PROB = "rollout/log_prob"


@dataclass(frozen=True)
class Buffer:
    """What one rank holds of a buffer, on CPU."""

    batch: Batch
    given: Mapping[str, Tensor] = field(default_factory=dict)  # signals that are already known
    metrics: Mapping[str, float] = field(default_factory=dict)
    compare: Mapping[str, Signal] = field(default_factory=dict)  # re-scored in the first update
    places: Sequence[str] = ()  # of every item, for people


class Source(Protocol):
    """A sequence of buffers; buffer i is a function of (seed, i) and, on-policy, the weights."""

    @property
    def n_buffers(self) -> int:
        """How many there are."""
        ...

    @property
    def updates(self) -> int:
        """Optimiser steps per buffer."""
        ...

    def buffer(self, index: int) -> Buffer:
        """Make or sample one."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


def schedule(
    n_items: int, size: int, optim: Optim, n_wanted: int | None, seed: int
) -> list[Tensor]:
    """Item numbers of every buffer: `epochs` passes, or as many as `n_wanted` buffers take."""
    if n_items == 0:
        raise DataError("no samples are left to train on")
    per_epoch = max(1, n_items // size)
    epochs = optim.epochs if n_wanted is None else math.ceil(n_wanted / per_epoch)
    every = optimiser_batches(n_items, size, epochs, seed, optim.shuffle)
    return list(itertools.islice(every, n_wanted))


@dataclass(frozen=True)
class OfflineSource:
    """Each buffer is one optimiser batch of the data set."""

    items: Sequence[Item]
    kind: type[Batch]
    batches: Sequence[Tensor]
    stored: Mapping[str, Stored]
    pad_id: int
    ranks: Ranks

    updates: int = 1

    @property
    def n_buffers(self) -> int:
        """One per optimiser step."""
        return len(self.batches)

    def buffer(self, index: int) -> Buffer:
        """The items of one step and their cached snapshots."""
        numbers = share_of_rank(self.batches[index], self.ranks.rank, self.ranks.size)
        if len(numbers) == 0:
            raise DataError(
                f"a batch of {len(self.batches[index])} items is too small for the ranks"
            )
        items = [self.items[i] for i in numbers.tolist()]
        batch = self.kind.collate(items, self.pad_id)
        given = {name: s.fill(items, batch) for name, s in self.stored.items()}
        return Buffer(batch, given, places=[f"item {n + 1} of the data" for n in numbers.tolist()])

    def close(self) -> None:
        """Holds nothing."""


Reward = Callable[[Sequence[int], Sequence[Completion]], Sequence[float]]


@dataclass(frozen=True)
class Rollout:
    """The `rollout:` block, resolved."""

    prompts: Sequence[tuple[int, ...]]
    reward: Reward | None  # (prompt numbers, completions) -> reward of each
    engine: RolloutEngine
    sampling: Sampling
    prompts_per_buffer: int
    samples_per_prompt: int = 1
    epochs: int = 1
    max_gap: float = 0.1
    places: Sequence[str] = ()  # where the prompts stand in the data

    def updates(self, batch_size: int) -> int:
        """Optimiser steps per buffer."""
        rows = min(self.prompts_per_buffer, len(self.prompts)) * self.samples_per_prompt
        return self.epochs * max(1, rows // batch_size)


@dataclass(frozen=True)
class RolloutSource:
    """Each buffer is sampled from the policy with its weights at that moment."""

    rollout: Rollout
    batches: Sequence[Tensor]  # prompt numbers
    updates: int
    policy: PreTrainedModel
    session: RolloutSession
    pad_id: int
    seed: int
    ranks: Ranks

    @property
    def n_buffers(self) -> int:
        """One per sampling phase."""
        return len(self.batches)

    def buffer(self, index: int) -> Buffer:
        """Sample, reward, collate."""
        r = self.rollout
        mine = share_of_rank(self.batches[index], self.ranks.rank, self.ranks.size).tolist()
        numbers = [prompt for prompt in mine for _ in range(r.samples_per_prompt)]
        keys = [
            sample_key(self.seed, "rollout", index, prompt, k)
            for prompt in mine
            for k in range(r.samples_per_prompt)
        ]
        self.session.sync(iter(self.policy.named_parameters()), index)
        done = self.session.generate([r.prompts[n] for n in numbers], r.sampling, keys)
        rewards = [0.0] * len(done) if r.reward is None else list(r.reward(numbers, done))
        batch = RolloutBatch.collate(
            [
                Item(
                    (Tokens(r.prompts[n], c.ids),),
                    {"reward": reward, "ended": float(c.ended), "group": float(n)},
                )
                for n, c, reward in zip(numbers, done, rewards, strict=True)
            ],
            self.pad_id,
        )
        given = {ROLLOUT_LOG_PROB: _log_probs(batch, done)}
        places = [
            f"answer {k + 1} to prompt {n + 1}" for n in mine for k in range(r.samples_per_prompt)
        ]
        compare = {ROLLOUT_LOG_PROB: log_prob("policy")}
        return Buffer(batch, given, self._metrics(batch), compare, places)

    def _metrics(self, batch: RolloutBatch) -> dict[str, float]:
        every = torch.ones_like(batch.ended, dtype=torch.bool)
        device = self.ranks.device
        values = {
            "rollout/truncated": 1 - batch.ended,
            "rollout/length": batch.response.sum(-1).float(),
            "rollout/reward": batch.reward,
        }
        if self.rollout.reward is None:
            del values["rollout/reward"]
        mask = every.to(device)
        return {name: self.ranks.mean(x.to(device), mask).item() for name, x in values.items()}

    def close(self) -> None:
        """Stop the engine."""
        self.session.close()


def _log_probs(batch: Batch, completions: Sequence[Completion]) -> Tensor:
    """[B, S] the engine's own log-probabilities of what it sampled."""
    grid = torch.zeros(batch.ids.shape)
    grid[batch.mask] = torch.tensor([x for c in completions for x in c.log_probs])
    return grid


def gap_metrics(pair: Tensor, max_gap: float, ranks: Ranks) -> dict[str, float]:
    """Mean |log p_trainer - log p_engine| over sampled tokens [2, n], in nats; a limit on it.

    A gap means that the engine sampled from another model than the one that learns.
    """
    difference = (pair[0] - pair[1]).abs()
    gap = ranks.mean(difference, torch.ones_like(difference, dtype=torch.bool)).item()
    if not gap <= max_gap:
        raise TrainingError(
            f"the rollout engine's log-probs differ from the trainer's by {gap:.3g} nats per token "
            f"(limit rollout.max_gap = {max_gap:g}): it does not sample from the trained weights"
        )
    return {"rollout/logprob_gap": gap}
