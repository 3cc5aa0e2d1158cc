"""Policy gradient with a leave-one-out baseline."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_rloo.algorithm import RLOO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """REINFORCE leave-one-out."""
    return [RLOO]
