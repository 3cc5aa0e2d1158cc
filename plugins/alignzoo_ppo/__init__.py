"""Proximal policy optimisation with a critic."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_ppo.algorithm import PPO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """PPO."""
    return [PPO]
