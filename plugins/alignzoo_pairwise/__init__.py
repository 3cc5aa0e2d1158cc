"""Any prompts: a judge says which of two answers is better, in both orders, or grades each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo import hookimpl
from alignzoo_pairwise.benchmark import Pairwise
from alignzoo_pairwise.pointwise import Pointwise

if TYPE_CHECKING:
    from alignzoo import Benchmark


@hookimpl
def register_benchmarks() -> list[type[Benchmark]]:
    """Win rate against a baseline, and mean grade, on prompts of one's own."""
    return [Pairwise, Pointwise]
