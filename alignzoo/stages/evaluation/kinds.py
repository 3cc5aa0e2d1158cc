"""Which of the four ways of measuring a benchmark takes; each is loaded when it is wanted."""

from __future__ import annotations

from pathlib import Path

from alignzoo.contract.evaluation import RewardBenchmark
from alignzoo.contract.verdicts import JudgedBenchmark
from alignzoo.recipe.blocks import EvaluateSpec
from alignzoo.stages.context import StageContext


def measure(spec: EvaluateSpec, model: str, baseline: Path | None, context: StageContext) -> None:
    """Measure one row of an `evaluate` block by a rule, by judges, as a reward or beside people.

    `baseline` is the finished folder of the model it is compared with.
    """
    kind = context.registry.find("benchmark", spec.benchmark)
    if issubclass(kind, RewardBenchmark):
        from alignzoo.stages.evaluation.rewarded import run_rewarded

        run_rewarded(spec, model, context)
    elif spec.rewards:
        from alignzoo.stages.evaluation.people import run_people

        run_people(spec, model, context)
    elif issubclass(kind, JudgedBenchmark):
        from alignzoo.stages.evaluation.judged import run_judged

        run_judged(spec, model, context, baseline)
    else:
        from alignzoo.stages.evaluation.ruled import run_evaluation

        run_evaluation(spec, model, context, baseline)
