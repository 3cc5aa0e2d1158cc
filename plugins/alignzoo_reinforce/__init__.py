"""Policy gradient on scalar token rewards of a DPO pair."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_reinforce.algorithm import Reinforce


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """Token-level REINFORCE."""
    return [Reinforce]
