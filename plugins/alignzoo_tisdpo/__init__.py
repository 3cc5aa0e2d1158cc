"""Token-level importance sampling for direct preference optimisation."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_tisdpo.algorithm import TISDPO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """TIS-DPO."""
    return [TISDPO]
