"""Direct preference optimisation and its family."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_dpo.algorithm import DPO
from alignzoo_dpo.hinge import HingeDPO
from alignzoo_dpo.ipo import IPO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """DPO, hinge DPO, IPO."""
    return [DPO, HingeDPO, IPO]
