"""What a recipe says, as frozen, validated values. `recipe_file.py` reads it from YAML."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = str  # of a stage: letters, digits, "-", "_", "."


class Spec(BaseModel):
    """Base of every block: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class PluginSpec(Spec):
    """A plug-in by name, with its options."""

    name: str
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="its options")


class DataSpec(Spec):
    """Which samples a stage eats, and how they become tokens."""

    name: str = Field(
        description="an earlier stage, a dataset of a plug-in, a file, a saved dataset or a hub name"
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


class OptimSpec(Spec):
    """The optimiser, its schedule, and how a step is cut into micro-batches."""

    epochs: int = Field(1, gt=0, description="passes over the data")
    steps: int | None = Field(None, gt=0, description="stop after so many optimiser steps")
    batch_size: int = Field(64, gt=0, description="items (pairs, sequences) per optimiser step")
    micro_batch_size: int = Field(16, gt=0, description="items per forward pass")
    lr: float = Field(1e-6, gt=0, description="peak learning rate")
    lr_by_role: dict[str, float] = Field(
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
    save_every: int = Field(50, gt=0, description="steps between checkpoints to resume from")
    shuffle: bool = True


class RewardSpec(Spec):
    """Where the reward of a sampled response comes from: a judge, or a scalar-head model."""

    judge: str | None = None
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="judge options")
    model: str | None = Field(None, description="an earlier stage or model with a scalar head")


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

    stage: str
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="options of the stage"
    )
    models: dict[str, str] = Field(default_factory=dict, description="models by the stage's names")
    data: DataSpec | None = None


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
    samples: int = Field(1, gt=0, description="responses per prompt")
    sampling: SamplingSpec = SamplingSpec()
    engine: str = "transformers"
    batch_size: int = Field(256, gt=0)


AnyStage = TrainSpec | GenerateSpec | LabelSpec | PluginStageSpec


class Recipe(Spec):
    """A whole experiment."""

    name: Name
    description: str = ""
    model: str = Field(description="the initial model: a folder, a hub name, or a plug-in's name")
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    stages: tuple[AnyStage, ...]
    evaluate: tuple[EvaluateSpec, ...] = ()
