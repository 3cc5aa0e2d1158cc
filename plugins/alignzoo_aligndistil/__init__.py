"""AlignDistil: token-level alignment as adaptive policy distillation."""

from alignzoo import Algorithm, hookimpl
from alignzoo_aligndistil.algorithm import AlignDistil


@hookimpl
def register_algorithms() -> list[type[Algorithm]]:
    """AlignDistil."""
    return [AlignDistil]
