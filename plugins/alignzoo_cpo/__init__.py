"""Contrastive preference optimisation."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_cpo.algorithm import CPO, CPOSimPO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """CPO, CPO-SimPO."""
    return [CPO, CPOSimPO]
