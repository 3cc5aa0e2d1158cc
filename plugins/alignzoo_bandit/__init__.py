"""Policy gradient that treats a response as one action."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_bandit.algorithm import Bandit


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """The sentence-level bandit."""
    return [Bandit]
