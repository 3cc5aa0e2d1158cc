"""Token-level direct preference optimisation."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_tdpo.algorithm import TDPO1, TDPO2


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """TDPO1, TDPO2."""
    return [TDPO1, TDPO2]
