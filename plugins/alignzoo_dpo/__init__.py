"""Direct preference optimisation and its family."""

from alignzoo import Algorithm, hookimpl
from alignzoo_dpo.algorithm import DPO
from alignzoo_dpo.ipo import IPO


@hookimpl
def register_algorithms() -> list[type[Algorithm]]:
    """DPO, IPO."""
    return [DPO, IPO]
