"""Binary classifier optimisation."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_bco.algorithm import BCO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """BCO."""
    return [BCO]
