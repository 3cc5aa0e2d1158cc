"""Odds-ratio preference optimisation: imitation and preference in one stage."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_orpo.algorithm import ORPO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """ORPO."""
    return [ORPO]
