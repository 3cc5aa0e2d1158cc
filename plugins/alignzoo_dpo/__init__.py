"""Direct preference optimisation and its family."""

from typing import Any

from alignzoo import Algorithm, hookimpl
from alignzoo_dpo.algorithm import DPO
from alignzoo_dpo.hinge import HingeDPO
from alignzoo_dpo.ipo import IPO
from alignzoo_dpo.trust_region import TRDPO


@hookimpl
def register_algorithms() -> list[type[Algorithm[Any]]]:
    """DPO, hinge DPO, IPO, and DPO with a reference that moves."""
    return [DPO, HingeDPO, IPO, TRDPO]
