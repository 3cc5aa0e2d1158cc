"""Reinforced token optimisation: a DPO model's token rewards, optimised with a critic."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_rto.algorithm import RTO, RTOv3


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """RTO as the AlignDistil paper ran it, and its official third version."""
    return [RTO, RTOv3]
