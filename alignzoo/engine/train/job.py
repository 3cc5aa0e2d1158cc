"""A training stage with everything resolved: what the loop is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.types import Item, Signal
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.scoring import snapshots
from alignzoo.engine.train import rails
from alignzoo.engine.train.batches import Cut
from alignzoo.engine.train.sources import Rollout

OnStep = Callable[[int, int, Mapping[str, float], Mapping[str, float]], None]


@dataclass(frozen=True)
class Validation:
    """Held-out items, and the metric whose best checkpoint is kept."""

    items: Sequence[Item]
    every: int
    metric: str
    sign: int  # +1 higher is better, -1 lower


@dataclass(frozen=True)
class Job:
    """A training stage with everything resolved."""

    algorithm: Algorithm[Any]
    load: Callable[[str], PreTrainedModel]  # role -> a fresh model
    digests: Mapping[str, str]  # role -> content hash of its checkpoint
    items: Sequence[Item]
    rollout: Rollout | None
    validation: Validation | None
    optim: Optim
    pad_id: int
    seed: int
    folder: Path  # of the stage: metrics.jsonl, timing.jsonl, state/
    cache: Path  # for snapshots
    ranks: Ranks
    strategy: str = "ddp"  # how models lie over the ranks: a name in `engine.layout.build`
    scoring: str = ""  # precision and code behind cached snapshots
    rails: rails.Rails = field(default_factory=rails.Rails)
    on_step: OnStep = field(default=lambda step, total, metrics, timing: None)
    say: Callable[[str], None] = field(default=lambda text: None)  # a sentence worth reading

    @property
    def cut(self) -> Cut:
        """How items become optimiser batches."""
        return Cut(self.optim.batch_size, self.algorithm.least_items)

    @property
    def how(self) -> str:
        """What the last bits of a snapshot depend on beside models, sequences and code."""
        o, device = self.optim, self.ranks.device.type
        return f"{self.scoring} {device} {o.scorer} {o.chunk_mb} {o.micro_batch_size}"

    @property
    def trainable(self) -> frozenset[str]:
        """Roles that learn."""
        return frozenset(name for name, role in self.algorithm.roles.items() if role.trainable)

    @property
    def on_policy(self) -> bool:
        """Whether buffers are sampled."""
        return self.rollout is not None

    @property
    def scored(self) -> tuple[dict[str, Signal], dict[str, Signal]]:
        """Snapshot signals: (cached on disk, computed for every buffer)."""
        every = dict(self.algorithm.snapshots())
        loaded = {role for s in every.values() for role in s.roles}
        if self.on_policy:
            extra = rails.drift_signals(self.algorithm)
            every |= {name: s for name, s in extra.items() if loaded.issuperset(s.roles)}
        cached = {
            name: s
            for name, s in every.items()
            if not self.on_policy and snapshots.is_cacheable(s, self.trainable)
        }
        return cached, {name: s for name, s in every.items() if name not in cached}
