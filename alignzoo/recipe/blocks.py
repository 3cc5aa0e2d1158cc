"""What a recipe says, as frozen, validated values. `file.py` reads it from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from alignzoo.recipe.mixture import mixture
from alignzoo.recipe.parallel import ParallelSpec
from alignzoo.recipe.rewards import Judges, PairRewardSpec, RewardSpec, ValuedSpec
from alignzoo.recipe.sampler import SamplerSpec
from alignzoo.recipe.spec import (
    AdapterSpec,
    Attention,
    Choose,
    JudgeSpec,
    LogSamplesSpec,
    Named,
    OptimSpec,
    RailsSpec,
    Spec,
    Trackers,
    not_above,
    short,
)

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]  # names a folder too
USUAL_LENGTH = 1024  # tokens of a sequence, where neither recipe nor model says otherwise
BUILT_IN_STAGES = ("generate", "label")


class DataSpec(Spec):
    """Which samples a stage eats, and how they become tokens."""

    name: str = Field(
        description="an earlier stage, a plug-in's dataset, a file, a saved dataset or a hub name"
    )
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="options of a plug-in's dataset"
    )
    subset: str | None = Field(None, description="configuration of a hub dataset")
    split: str = Field("train", description="split of a hub or saved dataset")
    limit: int | None = Field(None, gt=0, description="use only the first so many samples")
    skip: int = Field(0, ge=0, description="leave out the first so many samples")
    swap: bool = Field(False, description="exchange chosen and rejected (reverse preferences)")
    max_length: int | None = Field(
        None,
        gt=1,
        description=f"longest prompt plus response, in tokens; default: {USUAL_LENGTH}, or the "
        "model's context where that is smaller",
    )
    max_prompt_length: int | None = Field(None, gt=0, description="longest prompt, in tokens")
    too_long: Literal["truncate", "drop", "error"] = Field(
        "truncate", description="what happens to a longer sample"
    )
    max_bad: float = Field(
        0.0, ge=0, le=1, description="share of unusable rows that is reported but tolerated"
    )
    max_equal: float = Field(
        0.1, ge=0, le=1, description="tolerated share of pairs with two answers of the same tokens"
    )
    learn: Literal["last", "all"] = Field(
        "last",
        description="what is imitated of a chat: the last turn of the assistant, or all of them",
    )
    template_cuts: Literal["refuse", "tell"] = Field(
        "refuse",
        description="a chat template that leaves out part of what is learnt, such as reasoning: "
        "the row is unusable, or what the template writes is learnt and the row counted",
    )
    special: Literal["parse", "split"] | None = Field(
        None,
        description="control tokens (BOS, EOS, padding, turns) that a text spells: tokens, or "
        "letters; default: letters, but a plain prompt with the tokens of turns is refused",
    )

    weight: float = Field(1.0, gt=0, description="in a list: how often an item stands in a pass")
    parts: tuple[DataSpec, ...] | None = Field(None, description="those of a list of data")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`data: pairs` means `data: {name: pairs}`; a list is a mixture."""
        return mixture(value) if isinstance(value, list) else short(value)

    @property
    def sources(self) -> tuple[DataSpec, ...]:
        """The parts of a mixture, or this block alone."""
        return self.parts or (self,)

    @field_validator("max_prompt_length")
    @classmethod
    def _prompt_fits(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value > (limit := info.data.get("max_length") or USUAL_LENGTH):
            raise ValueError(f"{value} is more than max_length, which is {limit}")
        return value


class SamplingSpec(Spec):
    """How responses are sampled."""

    max_new_tokens: int = Field(64, gt=0, description="tokens at most, the stop token included")
    min_new_tokens: int = Field(
        0, ge=0, description="tokens of content at least; the stop token does not count"
    )
    temperature: float = Field(1.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="1 is off")
    top_k: int = Field(0, ge=0, description="0 is off")
    stop: tuple[str, ...] = Field(
        (),
        description="tokens that end a response; default: the tokenizer's end-of-sequence, those "
        "of the model's generation config, and the one that closes a turn of its chat template",
    )

    @field_validator("min_new_tokens")
    @classmethod
    def _minimum_fits(cls, value: int, info: ValidationInfo) -> int | None:
        return not_above(value, "max_new_tokens", info)


class PartialSampling(Spec):
    """Sampling settings that go before those a benchmark prescribes; see SamplingSpec."""

    max_new_tokens: int | None = Field(None, gt=0, description="tokens at most")
    min_new_tokens: int | None = Field(None, ge=0, description="tokens of content at least")
    temperature: float | None = Field(None, ge=0, description="0 is greedy")
    top_p: float | None = Field(None, gt=0, le=1, description="1 is off")
    top_k: int | None = Field(None, ge=0, description="0 is off")
    stop: tuple[str, ...] | None = Field(None, description="tokens that end a response")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.over({})
        return self

    def over(self, prescribed: Mapping[str, Any]) -> SamplingSpec:
        """These settings, else the prescribed ones, else the defaults.

        Raises pydantic's ValidationError when the mixture is not sound.
        """
        own = self.model_dump(exclude_none=True)
        return SamplingSpec.model_validate({**prescribed, **own})


class EngineSpec(Named):
    """A rollout engine with its options."""

    name: str = Field("transformers", description="what samples: a name from `list engines`")
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="engine options")


class RolloutSpec(Spec):
    """Train on responses the policy samples: how many, how, and what they earn."""

    prompts: int = Field(64, gt=0, description="prompts per rollout buffer")
    samples_per_prompt: int = Field(1, gt=0, description="answers to each prompt")
    epochs: int = Field(1, gt=0, description="passes over one buffer")
    sampling: SamplingSpec = SamplingSpec()
    sampler: SamplerSpec | None = Field(
        None, description="what the tokens are drawn from; default: the policy alone"
    )
    reward: RewardSpec | None = None
    choose: Choose | None = Field(
        None,
        description="which pairs the answers to a prompt make for a method that learns from pairs; "
        "default: best_worst",
    )
    share: float = Field(
        1.0, gt=0, le=1, description="of the prompts that are sampled for; others keep the data's"
    )
    engine: EngineSpec = EngineSpec()
    batch_size: int = Field(256, gt=0, description="sequences sampled side by side")
    max_gap: float = Field(
        0.1, gt=0, description="largest mean |log-prob gap| between engine and trainer, in nats"
    )

    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="older place of the engine's options"
    )

    @field_validator("sampler")
    @classmethod
    def _mixes_something(cls, value: SamplerSpec | None) -> SamplerSpec | None:
        """The policy alone is what is sampled from without a sampler."""
        return value if value is not None and value.mixes else None

    @model_validator(mode="after")
    def _older_form(self) -> Self:
        """`{engine: NAME, with: OPTIONS}` means `engine: {name: NAME, with: OPTIONS}`."""
        if not self.with_:
            return self
        if self.engine.with_:
            raise ValueError("options of an engine stand in one place; move 'with' into 'engine'")
        engine = self.engine.model_copy(update={"with_": self.with_})
        return self.model_copy(update={"engine": engine, "with_": {}})


class ValidationSpec(Spec):
    """Held-out data looked at while training; the best checkpoint by a metric is kept."""

    data: DataSpec
    every: int = Field(50, gt=0, description="optimiser steps between validations")
    metric: str = Field("loss", description="which one decides about the best checkpoint")
    better: Literal["lower", "higher"] = Field("lower", description="which way is better")
    patience: int | None = Field(
        None,
        gt=0,
        description="training ends after so many validations in a row without a better one; null: "
        "it never ends early",
    )


class StageSpec(Spec):
    """What every stage has."""

    name: Name = Field(description="how later stages, commands and tables call its result")


class TrainSpec(StageSpec):
    """Train the roles of an algorithm."""

    algorithm: str = Field(description="the method: a name from `list algorithms`")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="options of the algorithm"
    )
    policy: str | None = Field(None, description="starting model; default: the recipe's model")
    roles: dict[str, str] = Field(
        default_factory=dict, description="which model plays the other roles"
    )
    adapter: AdapterSpec | None = Field(
        None,
        description="learn an adapter over the starting model, whose weights stay as they are; "
        "default: learn all weights",
    )
    data: DataSpec
    validation: ValidationSpec | None = None
    train: OptimSpec = OptimSpec()
    rollout: RolloutSpec | None = None
    rails: RailsSpec = RailsSpec()
    log_samples: LogSamplesSpec = LogSamplesSpec()


class GenerateSpec(StageSpec):
    """Sample responses from a model."""

    stage: Literal["generate"] = Field(description="what kind of stage this is")
    policy: str | None = Field(None, description="model; default: the recipe's model")
    data: DataSpec
    samples: int = Field(1, gt=0, description="responses per prompt")
    sampling: SamplingSpec = SamplingSpec()
    engine: EngineSpec = EngineSpec()
    batch_size: int = Field(256, gt=0, description="sequences sampled side by side")


class LabelSpec(ValuedSpec, StageSpec):
    """Turn sampled responses into pairs that judges prefer one way."""

    stage: Literal["label"] = Field(description="what kind of stage this is")
    data: DataSpec
    judge: Judges = Field(
        description="who values the answers: a name from `list judges`, or a panel of several"
    )
    choose: Choose = Field(
        "best_worst",
        description="best against worst; or drawn with P(a over b) = sigmoid(score_a - score_b), "
        "of win rates (1 + win_a - win_b) / 2",
    )


class PluginStageSpec(StageSpec):
    """A stage that a plug-in provides."""

    stage: str = Field(
        description="a name from `list stages`",
        json_schema_extra={"not": {"enum": list(BUILT_IN_STAGES)}},
    )
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="options of the stage"
    )
    models: dict[str, str] = Field(default_factory=dict, description="models by the stage's names")
    data: DataSpec | None = None


def _as_judges(value: Any) -> Any:
    """`judge: NAME` and `judge: {name: NAME}` mean a list of one."""
    several = value if isinstance(value, list | tuple) else [value]
    return tuple({"name": one} if isinstance(one, str) else one for one in several)


class EvaluateSpec(Spec):
    """One benchmark on some of the models."""

    benchmark: str = Field(description="a name from `list benchmarks`")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="options of the benchmark"
    )
    models: tuple[str, ...] | None = Field(
        None, description="stages to evaluate; default: every train stage"
    )
    baseline: str | None = Field(None, description="model that the others are compared with")
    kl_to: tuple[str, ...] = Field(
        (), description="models to measure KL(model || this) to, on the model's own responses"
    )
    limit: int | None = Field(None, gt=0, lt=2**63, description="only the first so many prompts")
    partial: bool = Field(
        False, description="leave out prompts that a file of outputs does not answer"
    )
    samples: int = Field(1, gt=0, description="responses per prompt")
    sampling: PartialSampling = PartialSampling()
    engine: EngineSpec = EngineSpec()
    batch_size: int = Field(256, gt=0, description="sequences sampled side by side")
    judge: Annotated[tuple[JudgeSpec, ...], BeforeValidator(_as_judges)] = Field(
        (), description="who judges, where the benchmark leaves it open; several are a panel"
    )
    vote: Literal["mean", "majority"] = Field("mean", description="how a panel comes to a verdict")
    min_parsed: float = Field(
        0.9, ge=0, le=1, description="smallest share of questions with a verdict; below: an error"
    )
    data: DataSpec | None = Field(
        None,
        description="given pairs, for a benchmark of rewards or to hold judges against people; "
        "nothing is sampled then",
    )
    rewards: dict[Name, PairRewardSpec] = Field(
        default_factory=dict, description="rewards or judges of these pairs, by their rows' names"
    )


AnyStage: TypeAlias = TrainSpec | GenerateSpec | LabelSpec | PluginStageSpec
StageKind: TypeAlias = Literal["train", "generate", "label", "plugin"]
STAGE_SPECS: dict[StageKind, type[AnyStage]] = {
    "train": TrainSpec,
    "generate": GenerateSpec,
    "label": LabelSpec,
    "plugin": PluginStageSpec,
}
NO_STAGE_KIND = (
    "a stage has either 'algorithm: NAME' (it trains) or 'stage: NAME' "
    "(generate, label, or a plug-in's stage)"
)


def stage_kind(stage: Any) -> StageKind | None:
    """What a stage is, from its keys or its type; None when it says nothing, or two things."""
    for kind, spec in STAGE_SPECS.items():
        if isinstance(stage, spec):
            return kind
    if not isinstance(stage, dict) or ("algorithm" in stage) == ("stage" in stage):
        return None
    if "algorithm" in stage:
        return "train"
    built_in: dict[Any, StageKind] = {"generate": "generate", "label": "label"}
    return built_in.get(str(stage["stage"]), "plugin")


_TaggedStage: TypeAlias = Annotated[
    Annotated[TrainSpec, Tag("train")]
    | Annotated[GenerateSpec, Tag("generate")]
    | Annotated[LabelSpec, Tag("label")]
    | Annotated[PluginStageSpec, Tag("plugin")],
    Discriminator(stage_kind, custom_error_type="stage_kind", custom_error_message=NO_STAGE_KIND),
]


class Recipe(Spec):
    """A whole experiment."""

    name: Name = Field(description="names the run's folder, together with a hash of the content")
    description: str = Field("", description="a sentence for readers")
    model: str = Field(description="the initial model: a folder, a hub name, or a plug-in's name")
    seed: int = Field(0, ge=0, lt=2**32, description="of data, sampling and new weights")
    threads: int | None = Field(
        None, gt=0, description="CPU threads; tiny models are fastest with one"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: products where that is faster; weights stay float32"
    )
    parallel: ParallelSpec = Field(
        default_factory=ParallelSpec,
        description="how models lie over the processes that train; changes no result",
    )
    attn_implementation: Attention | None = Field(
        None, description="how every model computes attention; default: as transformers chooses"
    )
    trackers: Trackers = Field((), description="where metrics are copied to; changes no result")
    stages: tuple[_TaggedStage, ...] = Field(
        description="each may use the results of earlier ones by name"
    )
    evaluate: tuple[EvaluateSpec, ...] = Field((), description="benchmarks, after the last stage")
