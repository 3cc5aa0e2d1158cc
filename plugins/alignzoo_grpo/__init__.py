"""Group-relative policy optimisation and its relatives."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_grpo.algorithm import GRPO
from alignzoo_grpo.relatives import CISPO, GSPO, DrGRPO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """GRPO, Dr. GRPO, GSPO, CISPO."""
    return [GRPO, DrGRPO, GSPO, CISPO]
