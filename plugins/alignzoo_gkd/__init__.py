"""Generalised knowledge distillation."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_gkd.algorithm import GKD


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """Distillation by forward KL, reverse KL or JSD."""
    return [GKD]
