"""Supervised fine-tuning."""

from alignzoo import Algorithm, hookimpl
from alignzoo_sft.algorithm import SFT


@hookimpl
def register_algorithms() -> list[type[Algorithm]]:
    """SFT."""
    return [SFT]
