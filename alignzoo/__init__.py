"""alignzoo: LLM-alignment methods as plug-ins on one engine. Names are imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignzoo.algorithm import Algorithm, Metric, Role, option
    from alignzoo.dataset import Dataset
    from alignzoo.errors import AlignzooError, DataError, PluginError, RecipeError
    from alignzoo.evaluation import (
        Answer,
        Benchmark,
        Column,
        Judge,
        Score,
        ScoredBenchmark,
    )
    from alignzoo.hookspecs import hookimpl
    from alignzoo.rollout import Completion, RolloutEngine, RolloutSession, Sampling
    from alignzoo.stage import ModelRef, Stage, StageInputs
    from alignzoo.types import (
        Batch,
        GroupSample,
        Item,
        LabelledBatch,
        LabelledSample,
        Loss,
        Max,
        Mean,
        Outputs,
        PairBatch,
        PairSample,
        PromptSample,
        Response,
        RolloutBatch,
        Rows,
        Sample,
        Signal,
        Signals,
        State,
        Term,
        TextBatch,
        TextSample,
        World,
    )

__version__ = "0.1.0"

_HOMES = {
    "algorithm": ("Algorithm", "Metric", "Role", "option"),
    "dataset": ("Dataset",),
    "errors": ("AlignzooError", "DataError", "PluginError", "RecipeError"),
    "evaluation": ("Answer", "Benchmark", "Column", "Judge", "Score", "ScoredBenchmark"),
    "hookspecs": ("hookimpl",),
    "rollout": ("Completion", "RolloutEngine", "RolloutSession", "Sampling"),
    "stage": ("ModelRef", "Stage", "StageInputs"),
    "types": (
        "Batch", "GroupSample", "Item", "LabelledBatch", "LabelledSample", "Loss", "Max", "Mean",
        "Outputs", "PairBatch", "PairSample", "PromptSample", "Response", "RolloutBatch", "Rows",
        "Sample", "Signal", "Signals", "State", "Term", "TextBatch", "TextSample", "World",
    ),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [
    "Algorithm",
    "AlignzooError",
    "Answer",
    "Batch",
    "Benchmark",
    "Column",
    "Completion",
    "DataError",
    "Dataset",
    "GroupSample",
    "Item",
    "Judge",
    "LabelledBatch",
    "LabelledSample",
    "Loss",
    "Max",
    "Mean",
    "Metric",
    "ModelRef",
    "Outputs",
    "PairBatch",
    "PairSample",
    "PluginError",
    "PromptSample",
    "RecipeError",
    "Response",
    "Role",
    "RolloutBatch",
    "RolloutEngine",
    "RolloutSession",
    "Rows",
    "Sample",
    "Sampling",
    "Score",
    "ScoredBenchmark",
    "Signal",
    "Signals",
    "Stage",
    "StageInputs",
    "State",
    "Term",
    "TextBatch",
    "TextSample",
    "World",
    "hookimpl",
    "option",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'alignzoo' has no attribute '{name}'")
    return getattr(importlib.import_module(f"alignzoo.{_HOME_OF[name]}"), name)
