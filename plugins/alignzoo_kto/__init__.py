"""Kahneman-Tversky optimisation: single answers, desirable or not."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_kto.algorithm import KTO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """KTO."""
    return [KTO]
