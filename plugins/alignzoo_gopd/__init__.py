"""Distillation on a reward: how far a teacher went from a reference."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_gopd.algorithm import GOPD, OPD2, ExOPD
from alignzoo_gopd.negative import NegativeAdvantage


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """G-OPD, ExOPD, delta distillation, and its control without a teacher."""
    return [GOPD, ExOPD, OPD2, NegativeAdvantage]
