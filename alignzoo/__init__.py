"""alignzoo: LLM-alignment methods as plug-ins on one engine. Names are imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignzoo.contract.algorithm import Algorithm, Metric, Role, option
    from alignzoo.contract.closed import Scratch
    from alignzoo.contract.datafiles import DataFile, file_digest, locate
    from alignzoo.contract.dataset import Dataset
    from alignzoo.contract.errors import (
        AlignzooError,
        DataError,
        PluginError,
        RecipeError,
        TrainingError,
    )
    from alignzoo.contract.evaluation import (
        Answer,
        Benchmark,
        Column,
        Estimate,
        Judge,
        RewardBenchmark,
        Score,
        ScoredBenchmark,
        bootstrap,
    )
    from alignzoo.contract.groups import GroupBatch
    from alignzoo.contract.hooks import hookimpl
    from alignzoo.contract.moving import Follow
    from alignzoo.contract.replies import holds_reasoning, read_verdict, without_reasoning
    from alignzoo.contract.rollout import (
        Completion,
        RolloutEngine,
        RolloutSession,
        Sampling,
        check_request,
    )
    from alignzoo.contract.stage import ModelRef, Stage, StageInputs
    from alignzoo.contract.tracker import Tracker
    from alignzoo.contract.types import (
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
        PromptText,
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
        Tokens,
        World,
    )
    from alignzoo.contract.verdicts import (
        AskedJudge,
        Capabilities,
        Decoding,
        JudgeBusy,
        JudgedBenchmark,
        JudgeError,
        JudgeSession,
        Question,
        QuestionRefused,
        Reply,
        Usage,
        Verdict,
    )
    from alignzoo.contract.views import Case
    from alignzoo.data.ends import end_ids
    from alignzoo.engine.sampling.handover import Handover
    from alignzoo.engine.sampling.kept import KeptServer

__version__ = "0.1.0"

_HOMES = {
    "contract.algorithm": ("Algorithm", "Metric", "Role", "option"),
    "contract.closed": ("Scratch",),
    "contract.datafiles": ("DataFile", "file_digest", "locate"),
    "contract.dataset": ("Dataset",),
    "contract.errors": (
        "AlignzooError", "DataError", "PluginError", "RecipeError", "TrainingError",
    ),
    "contract.evaluation": (
        "Answer", "Benchmark", "Column", "Estimate", "Judge", "RewardBenchmark", "Score",
        "ScoredBenchmark", "bootstrap",
    ),
    "contract.groups": ("GroupBatch",),
    "contract.hooks": ("hookimpl",),
    "contract.moving": ("Follow",),
    "contract.replies": ("holds_reasoning", "read_verdict", "without_reasoning"),
    "contract.rollout": (
        "Completion", "RolloutEngine", "RolloutSession", "Sampling", "check_request",
    ),
    "contract.stage": ("ModelRef", "Stage", "StageInputs"),
    "contract.tracker": ("Tracker",),
    "contract.types": (
        "Batch", "GroupSample", "Item", "LabelledBatch", "LabelledSample", "Loss", "Max", "Mean",
        "Outputs", "PairBatch", "PairSample", "PromptSample", "PromptText", "Response",
        "RolloutBatch", "Rows", "Sample", "Signal", "Signals", "State", "Term", "TextBatch",
        "TextSample", "Tokens", "World",
    ),
    "contract.verdicts": (
        "AskedJudge", "Capabilities", "Decoding", "JudgeBusy", "JudgeError", "JudgeSession",
        "JudgedBenchmark", "Question", "QuestionRefused", "Reply", "Usage", "Verdict",
    ),
    "contract.views": ("Case",),
    "data.ends": ("end_ids",),
    "engine.sampling.handover": ("Handover",),
    "engine.sampling.kept": ("KeptServer",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [
    "Algorithm",
    "AlignzooError",
    "Answer",
    "AskedJudge",
    "Batch",
    "Benchmark",
    "Capabilities",
    "Case",
    "Column",
    "Completion",
    "DataError",
    "DataFile",
    "Dataset",
    "Decoding",
    "Estimate",
    "Follow",
    "GroupBatch",
    "GroupSample",
    "Handover",
    "Item",
    "Judge",
    "JudgeBusy",
    "JudgeError",
    "JudgeSession",
    "JudgedBenchmark",
    "KeptServer",
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
    "PromptText",
    "Question",
    "QuestionRefused",
    "RecipeError",
    "Reply",
    "Response",
    "RewardBenchmark",
    "Role",
    "RolloutBatch",
    "RolloutEngine",
    "RolloutSession",
    "Rows",
    "Sample",
    "Sampling",
    "Score",
    "ScoredBenchmark",
    "Scratch",
    "Signal",
    "Signals",
    "Stage",
    "StageInputs",
    "State",
    "Term",
    "TextBatch",
    "TextSample",
    "Tokens",
    "Tracker",
    "TrainingError",
    "Usage",
    "Verdict",
    "World",
    "__version__",
    "bootstrap",
    "check_request",
    "end_ids",
    "file_digest",
    "holds_reasoning",
    "hookimpl",
    "locate",
    "option",
    "read_verdict",
    "without_reasoning",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'alignzoo' has no attribute '{name}'")
    return getattr(importlib.import_module(f"alignzoo.{_HOME_OF[name]}"), name)
