"""Distillation: from another model, from two, or from oneself behind a hint."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_gkd.algorithm import GKD
from alignzoo_gkd.mopd import MOPD
from alignzoo_gkd.sdft import OPSD, SDFT
from alignzoo_gkd.sdpo import SDPO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """GKD, SDFT, OPSD, SDPO, multi-teacher distillation."""
    return [GKD, SDFT, OPSD, SDPO, MOPD]
