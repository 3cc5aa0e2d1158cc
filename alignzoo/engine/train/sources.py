"""Where the buffers of a training stage come from: a data set, or the policy's own samples."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.contract.choosing import BEST_WORST, Chooser, items_of
from alignzoo.contract.errors import DataError, TrainingError
from alignzoo.contract.rollout import (
    Completion,
    RolloutEngine,
    RolloutSession,
    Sampling,
    sample_key,
)
from alignzoo.contract.types import Batch, Item, PairBatch, Signal
from alignzoo.engine.layout.base import Layout
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.models.adapters import is_adapted, merged, plain_weights
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.sampling.mixtures import Mixture
from alignzoo.engine.scoring.filed import Filed
from alignzoo.engine.train import words
from alignzoo.engine.train.batches import Schedule, batches_for, share_of_rank
from alignzoo.engine.train.cut import Cut
from alignzoo.engine.train.making import Group, Made, made_of
from alignzoo.engine.train.phases import REWARD, SAMPLING, Clock
from alignzoo.ops import log_prob, watched

ROLLOUT_LOG_PROB = "rollout/log_prob"


@dataclass(frozen=True)
class Buffer:
    """What one rank holds of a buffer, on CPU.

    A rank without a share holds one item all the same, because forwards must match, and is idle.
    """

    batch: Batch
    n_items: int  # of the whole buffer
    positions: Tensor  # [I] int64: where this rank's items stand in the whole; none: it is idle
    given: Mapping[str, Tensor] = field(default_factory=dict)  # signals that are already known
    metrics: Mapping[str, float] = field(default_factory=dict)
    compare: Mapping[str, Signal] = field(default_factory=dict)  # re-scored in the first update
    place: Callable[[int], str] = "item {}".format  # of an item, for people
    rewards: Tensor = field(default_factory=lambda: torch.zeros(0, 1))  # [I, n] of its answers


class Source(Protocol):
    """A sequence of buffers; buffer i is a function of (seed, i) and, on-policy, the weights."""

    @property
    def steps(self) -> int:
        """Optimiser steps of all buffers together."""
        ...

    def buffer(self, index: int) -> Buffer:
        """Make or sample one."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


def schedule(
    n_items: int,
    cut: Cut,
    optim: Optim,
    seed: int,
    updates: Callable[[int], int] = lambda n_items: 1,
) -> Schedule:
    """Item numbers of every buffer: `epochs` passes, or as many buffers as `steps` take.

    `updates` maps a buffer's number of items to its optimiser steps.
    """
    if n_items < cut.least:
        raise DataError(
            f"{n_items} samples are left to train on, but the method compares the items of a "
            f"batch and needs {cut.least}; use more data"
            if n_items
            else "no samples are left to train on"
        )
    sizes = cut.sizes(n_items)
    wanted = optim.epochs * len(sizes)
    if optim.steps is not None:
        wanted = batches_for(optim.steps, [updates(size) for size in sizes])
    return Schedule(n_items, cut, wanted, seed, optim.shuffle)


@dataclass(frozen=True)
class OfflineSource:
    """Each buffer is one optimiser batch of the data set."""

    items: Sequence[Item]
    kind: type[Batch]
    batches: Schedule
    stored: Mapping[str, Filed]
    pad_id: int
    ranks: Ranks

    @property
    def steps(self) -> int:
        """One per buffer."""
        return len(self.batches)

    def buffer(self, index: int) -> Buffer:
        """The items of one step and their cached snapshots."""
        every = self.batches[index]
        positions = share_of_rank(torch.arange(len(every)), self.ranks.rank, self.ranks.size)
        numbers = every[positions] if len(positions) else every[:1]
        batch = self.kind.collate([self.items[i] for i in numbers.tolist()], self.pad_id)
        known = {name: s.fill(numbers, batch) for name, s in self.stored.items()}
        place = partial(words.item, numbers, "the data")
        return Buffer(batch, len(every), positions, known, place=place)

    def close(self) -> None:
        """Holds nothing."""


@dataclass(frozen=True)
class Earned:
    """What sampled answers earn, and what is logged of it."""

    values: Sequence[float]  # one per answer
    shown: Mapping[str, Sequence[float]] = field(default_factory=dict)  # metric -> one per answer
    totals: Mapping[str, float] = field(default_factory=dict)  # metric -> alike on all ranks


# Called on every rank with the answers of its own prompts, also where it has none.
Reward = Callable[[Sequence[int], Sequence[Completion]], Earned | Sequence[float]]
# (prompt number, all its answers, their scores) -> for each of them, view -> the ids before it
Seen = Callable[
    [int, Sequence[Completion], Sequence[float]], Sequence[Mapping[str, tuple[int, ...]]]
]


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
    chooser: Chooser = BEST_WORST  # of pairs, for methods that learn from such
    values: Sequence[Mapping[str, float]] = ()  # numbers of the prompts' rows
    views: Seen | None = None  # where some role reads other prompts
    share: float = 1.0  # of the prompts that are sampled for
    mixture: Mixture | None = None  # what tokens are drawn from, where not from the policy alone
    own: Sequence[Item] = ()  # what the data has for the others, prompt by prompt
    begin: Callable[[int], None] = lambda index: None  # tells the reward which buffer comes
    close: Callable[[], None] = lambda: None  # gives back what the reward holds

    @property
    def compared(self) -> dict[str, Signal]:
        """What the trainer says of the samples: their log-probs under what they were drawn from."""
        drawn = self.mixture.log_prob() if self.mixture else log_prob("policy")
        return {ROLLOUT_LOG_PROB: watched(drawn)}

    @property
    def mixed(self) -> frozenset[str]:
        """The roles that tokens are drawn from."""
        return frozenset(self.mixture.weights if self.mixture else {"policy"})

    def items_per_prompt(self, kind: type[Batch]) -> int:
        """Items of a kind of batch that the answers to one prompt make."""
        return items_of(kind, self.samples_per_prompt, self.chooser)


@dataclass(frozen=True)
class Sampled:
    """The policy as an engine samples it."""

    layout: Layout
    model: PreTrainedModel  # that the engine was started with
    session: RolloutSession

    @classmethod
    def by(cls, rollout: Rollout, layout: Layout) -> Sampled:
        """Start an engine; collective. Where weights are sharded it gets copies."""
        engine, mixture = rollout.engine, rollout.mixture
        model = layout.plain("policy", layout.ranks.device)
        own = model is layout.scoring.by_role["policy"]
        if is_adapted(model) and not (own and engine.in_place):
            model = merged(model)
        if mixture is None:
            return cls(layout, model, engine.start(model))
        models = {
            role: model if role == "policy" else layout.plain(role, layout.ranks.device)
            for role in mixture.weights
        }
        return cls(layout, model, engine.start_mixed(models, mixture))

    def sync(self, version: int) -> None:
        """Hand over the weights of the moment; collective."""
        whole = self.layout.whole("policy")
        if not is_adapted(self.model):
            whole = plain_weights(self.layout.scoring.by_role["policy"], whole)
        weights = _taken_over(self.model, whole)
        self.session.sync(weights, version)
        for _ in weights:  # an engine in this process may have nothing to take
            pass


@torch.no_grad()
def _taken_over(
    model: PreTrainedModel, weights: Iterable[tuple[str, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    """The weights as the model's own, which are overwritten where they lie elsewhere."""
    own = dict(model.named_parameters())
    for name, x in weights:
        if own[name].data_ptr() != x.data_ptr():
            own[name].copy_(x)
        yield name, own[name]


@dataclass(frozen=True)
class RolloutSource:
    """Each buffer is sampled from the policy with its weights at that moment."""

    rollout: Rollout
    kind: type[Batch]
    batches: Schedule  # prompt numbers
    cut: Cut  # of a buffer's items
    policy: Sampled
    pad_id: int
    seed: int
    ranks: Ranks
    views: Sequence[str] = ()  # names
    clock: Clock = field(default_factory=Clock)

    @property
    def items_per_prompt(self) -> int:
        """Of every buffer."""
        return self.rollout.items_per_prompt(self.kind)

    @property
    def steps(self) -> int:
        """The last buffer of an epoch may be smaller, and take fewer."""
        n, epochs = self.items_per_prompt, self.rollout.epochs
        return self.batches.total(lambda n_prompts: self.cut.updates(n_prompts * n, epochs))

    def buffer(self, index: int) -> Buffer:
        """Sample, reward, choose, collate."""
        n, every = self.items_per_prompt, self.batches[index]
        places = torch.arange(len(every) * n).view(-1, n)
        positions = share_of_rank(places, self.ranks.rank, self.ranks.size).flatten()
        with self.clock.during(SAMPLING):  # on a rank without prompts too: weights may lie on all
            self.policy.sync(index)
        asked = {n for n in every.tolist() if self._is_sampled(n, index)}
        mine = share_of_rank(every, self.ranks.rank, self.ranks.size).tolist()
        groups: list[Group] = []
        earned = Earned(())
        if asked:
            groups, earned = self._sampled([n for n in mine if n in asked], index)
        if mine:
            made = self._together(mine, groups, index)
        else:
            groups = [self._lent(every)]
            made = list(self._made(groups[0], index)[:1])
        batch = self.kind.collate([one.item for one in made], self.pad_id)
        return Buffer(
            batch,
            len(every) * n,
            positions,
            given={ROLLOUT_LOG_PROB: _log_probs(batch, made)},
            metrics=self._metrics(groups, made, earned, self.ranks.resting(not mine))
            if asked
            else {},
            compare=self.rollout.compared if asked else {},
            place=lambda item: made[item].place,
            rewards=torch.tensor([one.rewards for one in made]),
        )

    def _is_sampled(self, prompt: int, index: int) -> bool:
        """By a coin that every rank throws alike."""
        share = self.rollout.share
        return share == 1 or sample_key(self.seed, "share", index, prompt) < share * 2**64

    def _together(self, prompts: Sequence[int], groups: Sequence[Group], index: int) -> list[Made]:
        """The items of all prompts in their order: of samples, or the data's own."""
        found, r = {group.number: group for group in groups}, self.rollout
        made: list[Made] = []
        for n in prompts:
            if n in found:
                made += self._made(found[n], index)
            else:
                made.append(Made(r.own[n], (), Group(n, r.prompts[n], (), ())))
        return made

    def _lent(self, prompts: Tensor) -> Group:
        """What an idle rank computes on and nobody counts; nothing is sampled or judged."""
        number, n = int(prompts[0]), self.rollout.samples_per_prompt
        done = Completion(self.rollout.prompts[number][-1:], (0.0,), ended=True)
        prompt = self.rollout.prompts[number]
        views = [dict.fromkeys(self.views, prompt)] * n
        return Group(number, prompt, [done] * n, [0.0] * n, self._values(number), views)

    def _sampled(self, mine: Sequence[int], index: int) -> tuple[list[Group], Earned]:
        r, n = self.rollout, self.rollout.samples_per_prompt
        numbers = [prompt for prompt in mine for _ in range(n)]
        done: Sequence[Completion] = ()
        if mine:
            with self.clock.during(SAMPLING), self.ranks.autocast():  # the arithmetic of training
                prompts = [r.prompts[p] for p in numbers]
                keys = [
                    sample_key(self.seed, "rollout", index, p, k) for p in mine for k in range(n)
                ]
                done = self.policy.session.generate(prompts, r.sampling, keys)
        with self.clock.during(REWARD):
            r.begin(index)
            found = [0.0] * len(done) if r.reward is None else r.reward(numbers, done)
        earned = found if isinstance(found, Earned) else Earned(found)
        groups = [
            self._group(prompt, done[at : at + n], earned.values[at : at + n])
            for prompt, at in zip(mine, range(0, len(done), n), strict=True)
        ]
        return groups, earned

    def _group(self, number: int, done: Sequence[Completion], scores: Sequence[float]) -> Group:
        r = self.rollout
        views = r.views(number, done, scores) if r.views else ()
        return Group(number, r.prompts[number], done, scores, self._values(number), views)

    def _values(self, number: int) -> Mapping[str, float]:
        return self.rollout.values[number] if self.rollout.values else {}

    def _made(self, group: Group, index: int) -> Sequence[Made]:
        def noise() -> random.Random:
            return random.Random(sample_key(self.seed, "choose", index, group.number))

        return made_of(group, self.kind, self.rollout.chooser, noise)

    def _metrics(
        self, groups: Sequence[Group], made: Sequence[Made], earned: Earned, ranks: Ranks
    ) -> dict[str, float]:
        done = [c for group in groups for c in group.done]
        values = {
            "rollout/truncated": [1.0 - c.ended for c in done],
            "rollout/length": [float(len(c.ids)) for c in done],
        }
        if self.rollout.reward is not None:
            values["rollout/reward"] = [score for group in groups for score in group.scores]
            values |= {name: list(own) for name, own in earned.shown.items()}
        if issubclass(self.kind, PairBatch):
            values["rollout/ties"] = [float(one.tie) for one in made if one.answers]
        if self.rollout.share < 1:
            values["rollout/share"] = [float(bool(one.answers)) for one in made]
        return ranks.means({n: torch.tensor(x) for n, x in values.items()}) | dict(earned.totals)

    def close(self) -> None:
        """Stop the engine, and whatever the reward holds."""
        self.policy.session.close()
        self.rollout.close()


def _log_probs(batch: Batch, made: Sequence[Made]) -> Tensor:
    """[B, S] the engine's own log-probabilities of what it sampled; NaN in rows of the data."""
    grid = torch.zeros(batch.ids.shape)
    rows = [one.log_probs(k) for k in range(batch.rows_per_item) for one in made]
    known = array("d", [x for row in rows for x in row])
    if known:
        grid.masked_scatter_(batch.mask, torch.frombuffer(known, dtype=torch.float64).to(grid))
    return grid


def check_gap(gap: float, most: float) -> None:
    """Mean |log p_trainer - log p_engine| over sampled tokens, in nats, and a limit on it.

    A gap means that the engine sampled from another model than the one that learns.
    """
    if not gap <= most:
        raise TrainingError(
            f"the rollout engine's log-probs differ from the trainer's by {gap:.3g} nats per token "
            f"(limit rollout.max_gap = {most:g}): it does not sample from the trained weights"
        )
