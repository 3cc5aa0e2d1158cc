"""Group-relative policy optimisation."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_grpo.algorithm import GRPO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """GRPO."""
    return [GRPO]
