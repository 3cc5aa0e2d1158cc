"""A training stage with everything resolved: what the loop is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedModel

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.closed import is_own
from alignzoo.contract.frozen import changing_in, is_cacheable
from alignzoo.contract.moving import Follow, moving_of
from alignzoo.contract.types import Batch, Item, Signal
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.models.adapters import Adapted, base_of, dressed
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.scoring.scorer import Special
from alignzoo.engine.train import rails
from alignzoo.engine.train.cut import Cut
from alignzoo.engine.train.examples import Examples
from alignzoo.engine.train.making import batch_of
from alignzoo.engine.train.moving import special_of
from alignzoo.engine.train.phases import Clock
from alignzoo.engine.train.sources import Rollout

OnStep = Callable[[int, int, Mapping[str, float], Mapping[str, float]], None]


@dataclass(frozen=True)
class Validation:
    """Held-out items, and the metric whose best checkpoint is kept."""

    items: Sequence[Item]
    every: int
    metric: str
    sign: int  # +1 higher is better, -1 lower
    patience: int | None = None  # validations without a better one that end training

    def is_over(self, step: int, best_step: int) -> bool:
        """Whether training ends at a step; a function of the cursor, so a resumed run agrees."""
        waited = step // self.every - best_step // self.every
        return self.patience is not None and best_step > 0 and waited >= self.patience


@dataclass(frozen=True)
class Job:
    """A training stage with everything resolved."""

    algorithm: Algorithm[Any]
    load: Callable[[str], PreTrainedModel]  # role -> a fresh model, or the base of an adapter
    digests: Mapping[str, str]  # role -> content hash of its checkpoint
    items: Sequence[Item]
    rollout: Rollout | None
    validation: Validation | None
    optim: Optim
    pad_id: int
    seed: int
    folder: Path  # of the stage: metrics.jsonl, timing.jsonl, logged_samples.jsonl, state/
    cache: Path  # for snapshots
    ranks: Ranks
    strategy: str = "ddp"  # how models lie over the ranks: a name in `engine.layout.build`
    adapted: Mapping[str, Adapted] = field(default_factory=dict)  # role -> what lies over its base
    scoring: str = ""  # precision and the core's code behind cached snapshots
    plugin: str = ""  # the code of the method's package
    rails: rails.Rails = field(default_factory=rails.Rails)
    clock: Clock = field(default_factory=Clock)
    examples: Examples | None = None  # prompts that are answered now and then
    on_step: OnStep = field(default=lambda step, total, metrics, timing: None)
    say: Callable[[str], None] = field(default=lambda text: None)  # a sentence worth reading

    def models(
        self, roles: Iterable[str], there: Mapping[str, PreTrainedModel] = MappingProxyType({})
    ) -> dict[str, PreTrainedModel]:
        """{role: its model}, fresh unless it is `there`; those of one base hold its tensors once.

        Roles that learn come first, because their checkpoints are looked at more closely.
        """
        found, wanted = dict(there), list(roles)
        for role in sorted(wanted, key=lambda name: name not in self.trainable):
            if role not in found:
                found[role] = self._fresh(role, found)
        return {role: found[role] for role in wanted}

    def _fresh(self, role: str, there: Mapping[str, PreTrainedModel]) -> PreTrainedModel:
        own = self.adapted.get(role)
        if own is None:
            return self.load(role)
        kin = [r for r, other in self.adapted.items() if r in there and other.base == own.base]
        base = base_of(there[kin[0]]) if kin else self.load(role)
        return dressed(base, own, self.seed)

    @property
    def cut(self) -> Cut:
        """How items become optimiser batches."""
        return Cut(self.optim.batch_size, self.algorithm.least_items)

    def how(self, signal: Signal) -> str:
        """What the last bits of a snapshot depend on beside models and sequences: the plug-in's
        code too, unless the computation is one of `ops`, which methods share.
        """
        o, device = self.optim, self.ranks.device.type
        own = "" if is_own(signal.reduce, signal.closed) else self.plugin
        chunk_mb = o.chunk(device) // 2**20
        return f"{self.scoring} {own} {device} {o.scorer} {chunk_mb} {o.micro_batch_size}"

    @property
    def trainable(self) -> frozenset[str]:
        """Roles that learn."""
        return frozenset(name for name, role in self.algorithm.roles.items() if role.trainable)

    @property
    def kind(self) -> type[Batch]:
        """What batches are made of."""
        own = self.algorithm.batch
        if self.rollout is None or self.rollout.own:
            return own
        return batch_of(own, self.rollout.samples_per_prompt)

    @cached_property
    def moving(self) -> Mapping[str, Follow]:
        """Which roles follow which."""
        return moving_of(self.algorithm)

    @property
    def changing(self) -> frozenset[str]:
        """Roles whose weights do not stay."""
        return changing_in(self.algorithm)

    @property
    def special(self) -> Special:
        """What the scoring module must know of roles."""
        return special_of(self.algorithm)

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
            if not self.on_policy and is_cacheable(s, self.changing)
        }
        return cached, {name: s for name, s in every.items() if name not in cached}
