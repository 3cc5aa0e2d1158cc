"""A reward model from preference pairs."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_reward_model.algorithm import RewardModel


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """The Bradley-Terry reward model."""
    return [RewardModel]
