"""Two models on any prompts: a judge says which answer is better, in both orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo import hookimpl
from alignzoo_pairwise.benchmark import Pairwise

if TYPE_CHECKING:
    from alignzoo import Benchmark


@hookimpl
def register_benchmarks() -> list[type[Benchmark]]:
    """Win rate against a baseline on prompts of one's own."""
    return [Pairwise]
