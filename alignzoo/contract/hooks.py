"""Every extension point. A hook answers "what exists?" or "what just happened?".

Registering hooks return classes and do nothing else. Resolving hooks stop at the first answer that
is not None; the core answers last. Observing hooks run on rank 0 and must not change training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignzoo.contract.algorithm import Algorithm, Metric, Role
    from alignzoo.contract.dataset import Dataset
    from alignzoo.contract.evaluation import Benchmark, Judge
    from alignzoo.contract.rollout import RolloutEngine
    from alignzoo.contract.stage import ModelRef, Stage
    from alignzoo.contract.tracker import Tracker

VERSION = 1  # a plug-in may state HOOKS_VERSION; another major version is refused

hookspec = pluggy.HookspecMarker("alignzoo")
hookimpl = pluggy.HookimplMarker("alignzoo")


@hookspec
def register_algorithms() -> Iterable[type[Algorithm[Any]]]:
    """Training methods, selected by `algorithm:` in a recipe."""


@hookspec
def register_datasets() -> Iterable[type[Dataset]]:
    """Datasets made by code, selected by `data:`."""


@hookspec
def register_judges() -> Iterable[type[Judge]]:
    """Everything that scores text: oracles, reward functions, LLM judges."""


@hookspec
def register_benchmarks() -> Iterable[type[Benchmark]]:
    """Benchmarks, selected by `benchmark:` in the `evaluate:` block."""


@hookspec
def register_rollout_engines() -> Iterable[type[RolloutEngine]]:
    """Engines that sample responses, selected by `engine:`."""


@hookspec
def register_stages() -> Iterable[type[Stage]]:
    """Steps with their own control flow, selected by `stage:`."""


@hookspec
def register_trackers() -> Iterable[type[Tracker]]:
    """What copies metrics to a dashboard, selected by `trackers:`."""


@hookspec(firstresult=True)
def load_model(ref: ModelRef, role: Role) -> PreTrainedModel | None:
    """The model a name stands for, in the shape a role needs; None: not mine.

    A scalar head may be new only where `role.trainable`: a frozen one must have been trained.
    """


@hookspec(firstresult=True)
def load_tokenizer(ref: ModelRef) -> PreTrainedTokenizerBase | None:
    """The tokenizer that goes with the model of that name; None: not mine."""


@hookspec(firstresult=True)
def identity(ref: ModelRef) -> str | None:
    """What stands for the content behind a name that `load_model` knows (a digest, a version).

    Work is done again when it changes. None: not mine, or the plug-in's code and the name say all.
    """


@hookspec(firstresult=True)
def save_model(model: PreTrainedModel, folder: Path) -> bool | None:
    """Write a model of `load_model` so that `load_model` can read that folder; None: not mine.

    Tried in a temporary folder before training; the tokenizer is written by the core.
    """


@hookspec
def on_run_start(
    run: Path, recipe: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Metric]]
) -> None:
    """Before the first stage. `recipe` has every default and override; `metrics` are those that
    the method of each training stage declares, by the stage's name, with those of the engine.
    """


@hookspec
def on_step(run: Path, stage: str, step: int, metrics: Mapping[str, float]) -> None:
    """After every optimiser step."""


@hookspec
def on_stage_end(run: Path, stage: str, folder: Path, reused: bool) -> None:
    """After a stage, or the evaluation of one model, is finished or was found finished.

    `folder` is its own, complete: nothing may be written there.
    """


@hookspec
def on_run_end(run: Path, error: BaseException | None) -> None:
    """After the last stage, or when the run stops with an error."""
