"""A registry of throw-away plug-ins for the recipe tests; options in postponed annotations."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Annotated, Literal

from alignzoo import (
    Algorithm,
    Benchmark,
    Dataset,
    Follow,
    GroupBatch,
    Judge,
    LabelledBatch,
    Metric,
    Role,
    RolloutBatch,
    RolloutEngine,
    Score,
    Stage,
    TextBatch,
    hookimpl,
    option,
)
from alignzoo.recipe.registry import BrokenPlugin, Plugin, Registry, build_registry


@dataclass(frozen=True)
class Margin(Algorithm):
    """Pairs, with a reference that starts like the policy."""

    name = "margin"
    roles = {"policy": Role(trainable=True), "reference": Role(like="policy")}
    metrics = {"accuracy": Metric("share of pairs in the right order")}
    beta: float = option(0.1, "strength of the constraint", gt=0)
    smoothing: float = option(0.0, "share of flipped labels", ge=0, le=0.5)


@dataclass(frozen=True)
class Copy(Algorithm):
    """Text with a teacher that the recipe must bind, every kind of option, and no policy role."""

    name = "copy"
    batch = TextBatch
    roles = {"student": Role(trainable=True), "teacher": Role()}
    weight: float = option(doc="weight of the teacher")
    kind: Literal["half", "full"] = option("half", "which distance")
    cap: float | None = option(None, "largest value", gt=0)
    betas: tuple[float, ...] = option((0.9, 0.95), "decay rates")
    steps: Annotated[int, "a count"] = 3
    names: list[str] = field(default_factory=list)
    copy: bool = False  # a name that pydantic's models use themselves

    def __post_init__(self) -> None:
        if self.cap is not None and self.cap < self.weight:
            raise ValueError("cap must be at least weight")


class Online(Algorithm):
    """Rollouts, no options."""

    name = "online"
    batch = RolloutBatch
    roles = {"policy": Role(trainable=True), "critic": Role(trainable=True, like="policy")}


@dataclass(frozen=True)
class Moves(Margin):
    """Pairs, with a reference that moves."""

    name = "moves"
    mix: float = option(0.5, "how far")

    def moving(self):
        return {"reference": Follow("policy", mix=self.mix)}


class Marks(Algorithm):
    """Labelled answers."""

    name = "marks"
    batch = LabelledBatch


class Groups(Algorithm):
    """All answers to a prompt at once."""

    name = "groups"
    batch = GroupBatch


class Siblings(Online):
    """Rollouts that are compared with each other."""

    name = "siblings"
    least_samples = 2
    least_items = 2


class Once(Online):
    """Rollouts without an importance ratio."""

    name = "once"
    single_update = True
    assumes_policy_samples = True


@dataclass(frozen=True)
class Toys(Dataset):
    """A dataset with a size."""

    name = "toys"
    size: int = option(10, "number of samples", gt=0)


@dataclass(frozen=True)
class Length(Judge):
    """A judge with an option."""

    name = "length"
    target: int = option(5, "wanted length")

    def score(self, answers):
        return [Score(-abs(answer.n_tokens - self.target)) for answer in answers]


@dataclass(frozen=True)
class Quiz(Benchmark):
    """A benchmark with an option."""

    name = "quiz"
    size: int = option(10, "number of prompts")


class Mix(Stage):
    """A stage of a plug-in."""

    name = "mix"


@dataclass(frozen=True)
class Fast(RolloutEngine):
    """An engine with an option."""

    name = "fast"
    memory: float = option(0.9, "share of the memory", gt=0, le=1)


def registry(*broken: BrokenPlugin) -> Registry:
    """Everything above, registered by one module."""
    module = ModuleType("toy_plugins")
    hooks = {
        "register_algorithms": [Margin, Copy, Online, Siblings, Once, Marks, Groups, Moves],
        "register_datasets": [Toys],
        "register_judges": [Length],
        "register_benchmarks": [Quiz],
        "register_stages": [Mix],
        "register_rollout_engines": [Fast],
    }
    for name, classes in hooks.items():
        setattr(module, name, hookimpl(_returning(classes)))
    return build_registry([(module, Plugin("toy_plugins", "toys", "1", ""))], broken)


def _returning(classes):
    def register():
        return classes

    return register
