"""Self-play preference optimisation."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_sppo.algorithm import SPPO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """SPPO."""
    return [SPPO]
