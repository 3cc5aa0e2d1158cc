"""What the policy sampled becomes the items of a kind of batch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from alignzoo.contract.choosing import Chooser
from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.rollout import Completion
from alignzoo.contract.types import (
    Batch,
    Item,
    PairBatch,
    RolloutBatch,
    Tokens,
)

Noise = Callable[[], random.Random]  # made where a choice needs it


@dataclass(frozen=True)
class Group:
    """The answers to one prompt of a buffer."""

    number: int  # of the prompt
    prompt: tuple[int, ...]
    done: Sequence[Completion]
    scores: Sequence[float]
    values: Mapping[str, float] = field(default_factory=dict)  # of the prompt's row
    views: Sequence[Mapping[str, tuple[int, ...]]] = ()  # of each answer: view -> its prompt


@dataclass(frozen=True)
class Made:
    """An item, and which answers its rows are."""

    item: Item
    answers: tuple[int, ...]
    group: Group
    tie: bool = False

    @property
    def place(self) -> str:
        """Where it comes from, for people."""
        if not self.answers:
            return f"the data's answer to prompt {self.group.number + 1}"
        several = len(self.answers) > 1
        which = " and ".join(str(k + 1) for k in self.answers)
        return f"answer{'s' if several else ''} {which} to prompt {self.group.number + 1}"

    @property
    def rewards(self) -> list[float]:
        """Of its rows; 0 for those of the data."""
        return [self.group.scores[k] for k in self.answers] or [0.0] * len(self.item.rows)

    def log_probs(self, row: int) -> Sequence[float]:
        """The engine's, of a row's answer; no numbers for one of the data."""
        if self.answers:
            return self.group.done[self.answers[row]].log_probs
        tokens = self.item.rows[row]
        return [math.nan] * (len(tokens.response) if tokens.learnt is None else sum(tokens.learnt))


def made_of(group: Group, kind: type[Batch], chooser: Chooser, noise: Noise) -> Sequence[Made]:
    """As many items as `contract.choosing.items_of` says."""
    make = next(make for base, make in MAKERS.items() if issubclass(kind, base))
    return make(group, chooser, noise)


def batch_of(kind: type[Batch], answers: int) -> type[Batch]:
    """What a rollout builds for a method that declares this kind."""
    if issubclass(kind, GroupBatch):
        return kind.of(answers)
    return RolloutBatch if issubclass(RolloutBatch, kind) else kind


def _rows(group: Group, chooser: Chooser, noise: Noise) -> list[Made]:
    """Every answer is an item, with its reward."""
    found = []
    number = float(group.number)
    for k, (done, score) in enumerate(zip(group.done, group.scores, strict=True)):
        values = {"reward": score, "ended": float(done.ended), "group": number}
        found.append(_made(group, (k,), values))
    return found


def _pairs(group: Group, chooser: Chooser, noise: Noise) -> list[Made]:
    """Chosen and rejected answers, with the numbers that a label stage gives a pair."""
    found = []
    for pick in chooser.picks([done.ids for done in group.done], group.scores, noise()):
        both = (pick.chosen, pick.rejected)
        names = ("score_chosen", "score_rejected")
        scores = {name: group.scores[k] for name, k in zip(names, both, strict=True)}
        found.append(_made(group, both, scores, pick.tie))
    return found


def _whole(group: Group, chooser: Chooser, noise: Noise) -> list[Made]:
    """All answers are one item."""
    ended = tuple(float(done.ended) for done in group.done)
    values = {"score": tuple(group.scores), "ended": ended}
    return [_made(group, tuple(range(len(group.done))), values)]


def _made(
    group: Group,
    answers: tuple[int, ...],
    values: Mapping[str, float | tuple[float, ...]],
    tie: bool = False,
) -> Made:
    rows = tuple([Tokens(group.prompt, group.done[k].ids) for k in answers])
    every = {**group.values, **values} if group.values else values
    if not group.views:
        return Made(Item(rows, every), answers, group, tie)
    views = {
        name: tuple(Tokens(group.views[k][name], group.done[k].ids) for k in answers)
        for name in group.views[0]
    }
    return Made(Item(rows, every, views), answers, group, tie)


Maker = Callable[[Group, Chooser, Noise], Sequence[Made]]
MAKERS: Mapping[type[Batch], Maker] = {  # the last one fits every kind with one row
    PairBatch: _pairs,
    GroupBatch: _whole,
    Batch: _rows,
}
