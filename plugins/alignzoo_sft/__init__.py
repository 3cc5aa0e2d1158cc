"""Supervised fine-tuning."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_sft.algorithm import SFT


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """SFT."""
    return [SFT]
