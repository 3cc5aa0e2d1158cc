"""Proximal policy optimisation with a critic."""

from alignzoo import Algorithm, hookimpl
from alignzoo_ppo.algorithm import PPO


@hookimpl
def register_algorithms() -> list[type[Algorithm]]:
    """PPO."""
    return [PPO]
