"""AlignDistil: token-level alignment as adaptive policy distillation."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_aligndistil.algorithm import AlignDistil


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """AlignDistil."""
    return [AlignDistil]
