"""Who values answers, and how: what the reward of a rollout and a label stage share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from alignzoo.recipe.spec import JudgeSpec, Named, Spec, short

PEOPLE = "humans"  # the row of those whom judges are held against
By: TypeAlias = Literal["score", "wins"]


def panel(value: Any) -> Any:
    """Entries of a list of judges; NAME means {name: NAME}."""
    if not isinstance(value, list | tuple):
        return value
    if not value:
        raise ValueError("names no judge")
    return tuple(short(one) for one in value)


Judges: TypeAlias = Annotated[str | tuple[JudgeSpec, ...], BeforeValidator(panel)]


class QuestionsSpec(Named):
    """A judged benchmark with its options: it words the questions and reads the replies."""

    name: str = Field(description="a name from `list benchmarks` of one that leaves the judge open")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="options of the benchmark"
    )


class ValuedSpec(Spec):
    """Who values answers, and how."""

    judge: Judges | None = Field(
        None, description="who values the answers: a name from `list judges`, or a panel of several"
    )
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="judge options")
    by: By | None = Field(
        None,
        description="what an answer is worth: its score, or its win rate against the other answers "
        "to its prompt; default: score, for a judge that scores by itself, else wins",
    )
    questions: QuestionsSpec | None = Field(
        None,
        description="what a judge that is asked in words is asked; default: pairwise for wins, "
        "pointwise for score",
    )
    vote: Literal["mean", "majority"] = Field("mean", description="how a panel comes to a verdict")
    min_parsed: float = Field(
        0.9, ge=0, le=1, description="smallest share of questions with a verdict; below: an error"
    )
    max_cost: float | None = Field(
        None,
        ge=0,
        description="asking stops before the replies of the whole stage cost more, in the money of "
        "the judge's prices",
    )

    @model_validator(mode="after")
    def _options_have_a_judge(self) -> Self:
        if self.with_ and isinstance(self.judge, tuple):
            raise ValueError("options of a judge of several stand beside its name")
        return self

    @property
    def judges(self) -> tuple[JudgeSpec, ...]:
        """The judges with their options; none for a reward model."""
        if isinstance(self.judge, str):
            return (JudgeSpec.model_validate({"name": self.judge, "with": self.with_}),)
        return self.judge or ()


class RewardSpec(ValuedSpec):
    """Where the reward of a sampled response comes from: judges, or a scalar-head model."""

    model: str | None = Field(None, description="an earlier stage or model with a scalar head")
    weight: float = Field(1.0, description="in a list: how often this reward counts in the sum")
    parts: tuple[RewardSpec, ...] | None = Field(None, description="those of a list of rewards")

    @model_validator(mode="before")
    @classmethod
    def _list_form(cls, value: Any) -> Any:
        """A list is a weighted sum."""
        if not isinstance(value, list | tuple):
            return value
        if not value or any(isinstance(part, list) for part in value):
            raise ValueError("write one list with a reward or more")
        return {"parts": tuple(value)}

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.parts is not None:
            return self
        if (self.judge is None) == (self.model is None):
            raise ValueError("a reward needs exactly one of 'judge' and 'model'")
        if self.with_ and self.judge is None:
            raise ValueError("'with' holds options of a judge; a reward model takes none")
        return self

    @property
    def sources(self) -> tuple[RewardSpec, ...]:
        """The parts of a sum, or this block alone."""
        return self.parts or (self,)

    @property
    def names(self) -> tuple[str, ...]:
        """What tells the parts of a sum apart in metrics: the judges' or the model's name."""
        return numbered([_called(part) for part in self.sources])


def _called(part: RewardSpec) -> str:
    if part.model is not None:
        return part.model.rstrip("/").rpartition("/")[2]
    return "+".join(judge.name for judge in part.judges)


class PairRewardSpec(Spec):
    """A reward r(x, y) of given answers: a scalar head's, one of two language models, a judge's."""

    model: str | None = Field(
        None, description="an earlier stage or model; alone it has a scalar head"
    )
    over: str | None = Field(
        None,
        description="another model: r = log p(y|x) under `model` minus the same under this one, "
        "summed over the tokens of the answer",
    )

    judge: Annotated[JudgeSpec | None, BeforeValidator(short)] = Field(
        None, description="instead of a model: a name from `list judges`, or name and options"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.judge is None) == (self.model is None):
            raise ValueError("a reward needs exactly one of 'model' and 'judge'")
        if self.over and self.model is None:
            raise ValueError("'over' goes with a model")
        return self

    @property
    def models(self) -> dict[str, str]:
        """Key -> the model that it names."""
        named = {"model": self.model, "over": self.over}
        return {key: name for key, name in named.items() if name}


def placed_rewards(reward: RewardSpec | None) -> list[tuple[RewardSpec, tuple[str | int, ...]]]:
    """The parts of a reward, each with its place in a train stage."""
    path: tuple[str | int, ...] = ("rollout", "reward")
    if reward is None or reward.parts is None:
        return [] if reward is None else [(reward, path)]
    return [(part, (*path, k)) for k, part in enumerate(reward.parts)]


def numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Names that tell things apart: one that is there twice gets its place."""
    return tuple(
        name if list(names).count(name) == 1 else f"{name}#{place}"
        for place, name in enumerate(names, 1)
    )
