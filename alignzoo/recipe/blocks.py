"""What a recipe says, as frozen, validated values. `recipe_file.py` reads it from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]  # names a folder too
BUILT_IN_STAGES = ("generate", "label")


Attention: TypeAlias = Literal[
    "eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4"
]


class Spec(BaseModel):
    """Base of every block: frozen, unknown keys are errors, numbers are finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


def _not_above(value: int | None, other: str, info: ValidationInfo) -> int | None:
    """The value; ValueError when it is larger than an earlier field of the same block."""
    limit = info.data.get(other)
    if value is not None and limit is not None and value > limit:
        raise ValueError(f"{value} is more than {other}, which is {limit}")
    return value


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
    max_length: int = Field(1024, gt=1, description="longest prompt plus response, in tokens")
    max_prompt_length: int | None = Field(None, gt=0, description="longest prompt, in tokens")
    too_long: Literal["truncate", "drop", "error"] = Field(
        "truncate", description="what happens to a longer sample"
    )
    max_bad: float = Field(
        0.0, ge=0, le=1, description="share of unusable rows that is reported but tolerated"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`data: pairs` means `data: {name: pairs}`."""
        return {"name": value} if isinstance(value, str) else value

    @field_validator("max_prompt_length")
    @classmethod
    def _prompt_fits(cls, value: int | None, info: ValidationInfo) -> int | None:
        return _not_above(value, "max_length", info)


class SamplingSpec(Spec):
    """How responses are sampled."""

    max_new_tokens: int = Field(64, gt=0)
    min_new_tokens: int = Field(1, ge=0)
    temperature: float = Field(1.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0 is off")
    stop: tuple[str, ...] = Field(
        (), description="tokens that end a response; default: the tokenizer's end-of-sequence"
    )

    @field_validator("min_new_tokens")
    @classmethod
    def _minimum_fits(cls, value: int, info: ValidationInfo) -> int | None:
        return _not_above(value, "max_new_tokens", info)


class PartialSampling(Spec):
    """Sampling settings that go before those a benchmark prescribes; see SamplingSpec."""

    max_new_tokens: int | None = Field(None, gt=0)
    min_new_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, description="0 is greedy")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, description="0 is off")
    stop: tuple[str, ...] | None = None

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


class OptimSpec(Spec):
    """The optimiser, its schedule, and how a step is cut into micro-batches."""

    epochs: int = Field(1, gt=0, description="passes over the data")
    steps: int | None = Field(None, gt=0, description="stop after so many optimiser steps")
    batch_size: int = Field(64, gt=0, description="items (pairs, sequences) per optimiser step")
    micro_batch_size: int = Field(
        default_factory=lambda given: min(16, given["batch_size"]),
        gt=0,
        description="items per forward pass; default: 16, or batch_size where that is smaller",
    )
    lr: float = Field(1e-6, gt=0, description="peak learning rate")
    lr_by_role: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="peak learning rate of single roles"
    )
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps with rising rate")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_lr: float = Field(0.1, ge=0, le=1, description="final rate as a share of the peak")
    max_grad_norm: float = Field(1.0, gt=0, description="clip the gradient of each role")
    gradient_checkpointing: bool = False
    scorer: Literal["chunked", "dense"] = Field(
        "chunked", description="dense holds all logits of a micro-batch: the readable reference"
    )
    chunk_mb: int = Field(256, gt=0, description="memory for the logits of one chunk, in MB")
    save_every: int | None = Field(
        None,
        gt=0,
        description="steps between checkpoints to resume from; null: at most 10 minutes of work "
        "are at risk, and at most 3 % of the time goes into saving",
    )
    shuffle: bool = True
    aux_loss: bool = Field(
        False, description="add the load-balancing loss of a mixture of experts, as its config says"
    )

    @field_validator("micro_batch_size")
    @classmethod
    def _micro_batch_fits(cls, value: int, info: ValidationInfo) -> int | None:
        return _not_above(value, "batch_size", info)


class RewardSpec(Spec):
    """Where the reward of a sampled response comes from: a judge, or a scalar-head model."""

    judge: str | None = None
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="judge options")
    model: str | None = Field(None, description="an earlier stage or model with a scalar head")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.judge is None) == (self.model is None):
            raise ValueError("a reward needs exactly one of 'judge' and 'model'")
        if self.with_ and self.judge is None:
            raise ValueError("'with' holds options of a judge; a reward model takes none")
        return self


class RolloutSpec(Spec):
    """Train on responses the policy samples: how many, how, and what they earn."""

    prompts: int = Field(64, gt=0, description="prompts per rollout buffer")
    samples_per_prompt: int = Field(1, gt=0)
    epochs: int = Field(1, gt=0, description="passes over one buffer")
    sampling: SamplingSpec = SamplingSpec()
    reward: RewardSpec | None = None
    engine: str = "transformers"
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="engine options")
    batch_size: int = Field(256, gt=0, description="sequences sampled side by side")
    max_gap: float = Field(
        0.1, gt=0, description="largest mean |log-prob gap| between engine and trainer, in nats"
    )


class ValidationSpec(Spec):
    """Held-out data looked at while training; the best checkpoint by a metric is kept."""

    data: DataSpec
    every: int = Field(50, gt=0, description="optimiser steps between validations")
    metric: str = "loss"
    better: Literal["lower", "higher"] = "lower"


class RailsSpec(Spec):
    """What the training loop watches for every method."""

    on_breach: Literal["warn", "stop"] = Field(
        "warn", description="what a broken promise or an unhealthy metric does"
    )
    max_kl: float | None = Field(
        None, gt=0, description="largest full-vocabulary KL to the frozen start, nats per response"
    )
    max_truncated: float | None = Field(
        None, ge=0, le=1, description="largest share of rollouts cut at max_new_tokens"
    )


class StageSpec(Spec):
    """What every stage has."""

    name: Name


class TrainSpec(StageSpec):
    """Train the roles of an algorithm."""

    algorithm: str
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="options of the algorithm"
    )
    policy: str | None = Field(None, description="starting model; default: the recipe's model")
    roles: dict[str, str] = Field(
        default_factory=dict, description="which model plays the other roles"
    )
    data: DataSpec
    validation: ValidationSpec | None = None
    train: OptimSpec = OptimSpec()
    rollout: RolloutSpec | None = None
    rails: RailsSpec = RailsSpec()


class GenerateSpec(StageSpec):
    """Sample responses from a model."""

    stage: Literal["generate"]
    policy: str | None = Field(None, description="model; default: the recipe's model")
    data: DataSpec
    samples: int = Field(1, gt=0, description="responses per prompt")
    sampling: SamplingSpec = SamplingSpec()
    engine: str = "transformers"
    batch_size: int = Field(256, gt=0)


class LabelSpec(StageSpec):
    """Turn sampled responses into pairs with a judge's scores."""

    stage: Literal["label"]
    data: DataSpec
    judge: str
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="judge options")
    choose: Literal["best_worst", "bradley_terry"] = Field(
        "best_worst",
        description="best against worst; or P(a over b) = sigmoid(score_a - score_b), sampled",
    )


class PluginStageSpec(StageSpec):
    """A stage that a plug-in provides."""

    stage: str = Field(json_schema_extra={"not": {"enum": list(BUILT_IN_STAGES)}})
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="options of the stage"
    )
    models: dict[str, str] = Field(default_factory=dict, description="models by the stage's names")
    data: DataSpec | None = None


class JudgeSpec(Spec):
    """A judge with its options."""

    name: str
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="judge options")


def _as_judges(value: Any) -> Any:
    """`judge: NAME` and `judge: {name: NAME}` mean a list of one."""
    several = value if isinstance(value, list | tuple) else [value]
    return tuple({"name": one} if isinstance(one, str) else one for one in several)


class EvaluateSpec(Spec):
    """One benchmark on some of the models."""

    benchmark: str
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
    engine: str = "transformers"
    batch_size: int = Field(256, gt=0)
    judge: Annotated[tuple[JudgeSpec, ...], BeforeValidator(_as_judges)] = Field(
        (), description="who judges, where the benchmark leaves it open; several are a panel"
    )
    vote: Literal["mean", "majority"] = Field("mean", description="how a panel comes to a verdict")
    min_parsed: float = Field(
        0.9, ge=0, le=1, description="smallest share of questions with a verdict; below: an error"
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

    name: Name
    description: str = ""
    model: str = Field(description="the initial model: a folder, a hub name, or a plug-in's name")
    seed: int = Field(0, ge=0, lt=2**32)
    threads: int | None = Field(
        None, gt=0, description="CPU threads; tiny models are fastest with one"
    )
    precision: Literal["fp32", "bf16"] = "fp32"
    attn_implementation: Attention | None = Field(
        None, description="how every model computes attention; default: as transformers chooses"
    )
    stages: tuple[_TaggedStage, ...] = Field(
        description="each may use the results of earlier ones by name"
    )
    evaluate: tuple[EvaluateSpec, ...] = Field((), description="benchmarks, after the last stage")
