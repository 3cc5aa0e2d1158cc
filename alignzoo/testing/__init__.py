"""The conformance kit: what makes "listed" mean "works", for our plug-ins and a stranger's.

    from alignzoo.testing import check_algorithm
    def test_my_method_keeps_the_contract():
        check_algorithm(MyMethod())

Every `check_*` raises PluginError that lists the promises that are broken; `run_*_checks` return
one `Check` per promise, which `alignzoo check` prints.
"""

from alignzoo.testing.algorithms import check_algorithm, run_algorithm_checks
from alignzoo.testing.checks import Check
from alignzoo.testing.datasets import check_dataset, run_dataset_checks
from alignzoo.testing.engines import check_rollout_engine, run_engine_checks
from alignzoo.testing.evaluators import (
    check_benchmark,
    check_judge,
    run_benchmark_checks,
    run_judge_checks,
)
from alignzoo.testing.processes import STRATEGIES
from alignzoo.testing.stages import (
    check_stage,
    run_stage_checks,
    tiny_tokenizer,
    toy_samples,
)
from alignzoo.testing.toys import (
    Gradients,
    gradients,
    tiny_model,
    tiny_models,
    toy_items,
    toy_job,
    toy_run,
    toy_sampling,
)
from alignzoo.testing.trackers import check_tracker, run_tracker_checks

__all__ = [
    "STRATEGIES",
    "toy_samples",
    "tiny_tokenizer",
    "run_stage_checks",
    "run_dataset_checks",
    "check_stage",
    "check_dataset",
    "Check",
    "Gradients",
    "check_algorithm",
    "check_benchmark",
    "check_judge",
    "check_rollout_engine",
    "check_tracker",
    "gradients",
    "run_algorithm_checks",
    "run_benchmark_checks",
    "run_engine_checks",
    "run_judge_checks",
    "run_tracker_checks",
    "tiny_model",
    "tiny_models",
    "toy_items",
    "toy_job",
    "toy_run",
    "toy_sampling",
]
