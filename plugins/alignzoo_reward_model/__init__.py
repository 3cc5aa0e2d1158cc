"""A reward model from preference pairs, and how often rewards agree with preferences."""

from typing import Any

from alignzoo import Algorithm, Benchmark, hookimpl
from alignzoo_reward_model.algorithm import RewardModel
from alignzoo_reward_model.benchmark import Preferences


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """The Bradley-Terry reward model."""
    return [RewardModel]


@hookimpl
def register_benchmarks() -> list[type[Benchmark]]:
    """Accuracy of rewards on given pairs."""
    return [Preferences]
