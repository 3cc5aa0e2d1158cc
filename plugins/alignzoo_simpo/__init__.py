"""Simple preference optimisation: no reference model."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_simpo.algorithm import HingeSimPO, SimPO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """SimPO and its hinge form."""
    return [SimPO, HingeSimPO]
