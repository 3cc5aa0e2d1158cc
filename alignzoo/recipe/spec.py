"""The base of every block of a recipe, and the blocks of the optimiser and of trackers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

Choose: TypeAlias = Literal["best_worst", "bradley_terry"]  # pairs of scored answers
Attention: TypeAlias = Literal[
    "eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4"
]


class Spec(BaseModel):
    """Base of every block: frozen, unknown keys are errors, numbers are finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


class Named(Spec):
    """Something that is chosen by name, with its options; NAME alone means {name: NAME}."""

    name: str
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return short(value)


def short(value: Any) -> Any:
    """`NAME` means `{name: NAME}`."""
    return {"name": value} if isinstance(value, str) else value


def not_above(value: int | None, other: str, info: ValidationInfo) -> int | None:
    """The value; ValueError when it is larger than an earlier field of the same block."""
    limit = info.data.get(other)
    if value is not None and limit is not None and value > limit:
        raise ValueError(f"{value} is more than {other}, which is {limit}")
    return value


class OptimizerSpec(Named):
    """An optimiser of torch with its options."""

    name: Literal[
        "adamw",
        "adam",
        "adamax",
        "nadam",
        "radam",
        "adafactor",
        "adagrad",
        "adadelta",
        "rmsprop",
        "sgd",
    ] = Field("adamw", description="its name in torch.optim, in small letters")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="options of torch.optim beside those here"
    )


def _adamw(given: Mapping[str, Any], value: Any) -> Any:
    """The default of an option: ours for adamw, for others that of torch."""
    known = given.get("optimizer")
    return value if known is not None and known.name == "adamw" else None


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
    optimizer: OptimizerSpec = Field(
        default_factory=OptimizerSpec, description="how gradients become updates"
    )
    betas: tuple[float, float] | None = Field(
        default_factory=lambda given: _adamw(given, (0.9, 0.95)),
        description="decay of the two averages of the Adam family; default: 0.9 and 0.95 for "
        "adamw, else torch's",
    )
    eps: float | None = Field(
        default_factory=lambda given: _adamw(given, 1e-8),
        gt=0,
        description="addition to the denominator; default: 1e-8 for adamw, else torch's",
    )
    weight_decay: float | None = Field(
        default_factory=lambda given: _adamw(given, 0.0),
        ge=0,
        description="decay of weights, per unit of rate; default: 0 for adamw, else torch's",
    )
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps with rising rate")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="how the rate falls after the warm-up"
    )
    min_lr: float = Field(0.1, ge=0, le=1, description="final rate as a share of the peak")
    max_grad_norm: float = Field(1.0, gt=0, description="clip the gradient of each role")
    gradient_checkpointing: bool = Field(
        False, description="compute layers twice instead of keeping their activations"
    )
    scorer: Literal["fused", "dense", "chunked"] = Field(
        "fused",
        description="dense holds all logits of a micro-batch: the readable reference; chunked is "
        "an older name of fused",
    )
    chunk_mb: int | None = Field(
        None,
        gt=0,
        description="memory for the logits of one chunk, in MB; null: 256 on a CPU, on a GPU a "
        "32nd of its memory, 3072 at most",
    )
    save_every: int | None = Field(
        None,
        gt=0,
        description="steps between checkpoints to resume from; null: at most 10 minutes of work "
        "are at risk, and at most 3 % of the time goes into saving",
    )
    shuffle: bool = Field(True, description="another order of the data in every epoch")
    aux_loss: bool = Field(
        False, description="add the load-balancing loss of a mixture of experts, as its config says"
    )
    cache_teacher: bool = Field(
        False,
        description="keep the hidden states of frozen models at the answers of given data, which "
        "every epoch would make anew, in the cache: time for disk, and `plan` says how much",
    )

    @field_validator("scorer")
    @classmethod
    def _scorer(cls, name: str) -> str:
        return "fused" if name == "chunked" else name

    @field_validator("micro_batch_size")
    @classmethod
    def _micro_batch_fits(cls, value: int, info: ValidationInfo) -> int | None:
        return not_above(value, "batch_size", info)


class JudgeSpec(Spec):
    """A judge with its options."""

    name: str = Field(description="a name from `list judges`")
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="judge options")


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


class LogSamplesSpec(Spec):
    """The same few prompts answered while a stage learns, for people to read; changes no result."""

    prompts: int = Field(8, ge=0, description="how many; 0 is off, and so is log_samples: false")
    at: int = Field(5, ge=2, description="moments, evenly spaced, the first and last step included")
    max_new_tokens: int = Field(64, gt=0, description="longest answer; a rollout's may be less")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`false` or nothing means none, `true` the defaults."""
        if value is None or value is False:
            return {"prompts": 0}
        return {} if value is True else value


class LoraSpec(Spec):
    """W x + (alpha / r) B A x in linear layers, W frozen (arXiv:2106.09685)."""

    r: int = Field(8, gt=0, description="rank: rows of A and columns of B")
    alpha: float = Field(16.0, gt=0, description="the adapter counts alpha / r times")
    dropout: float = Field(
        0.0, ge=0, description="0 alone: samples, references and policy must be one function"
    )
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        "all-linear",
        description="every linear layer between embedding and output layer, or a list of the last "
        "parts of their names, such as [q_proj, v_proj]",
    )

    @field_validator("dropout")
    @classmethod
    def _one_function(cls, value: float) -> float:
        if value:
            raise ValueError(
                f"{value:g} would make the policy another function than the one that is sampled "
                "and saved; only 0 is supported"
            )
        return value

    @property
    def ends(self) -> tuple[str, ...]:
        """Of the names of the layers; none stand for every linear layer."""
        return () if isinstance(self.targets, str) else self.targets


class AdapterSpec(Spec):
    """What a stage learns in place of all weights."""

    lora: LoraSpec


class TrackerSpec(Named):
    """A tracker with its options."""

    name: str = Field(description="a name from `list trackers`")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="options of the tracker"
    )


Trackers: TypeAlias = tuple[TrackerSpec, ...]
