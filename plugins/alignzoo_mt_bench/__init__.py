"""MT-Bench: answers to 80 questions of two turns, graded from 1 to 10 or compared in pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo import hookimpl
from alignzoo_mt_bench.benchmark import MTBench
from alignzoo_mt_bench.pairwise import MTBenchPairwise

if TYPE_CHECKING:
    from alignzoo import Benchmark


@hookimpl
def register_benchmarks() -> list[type[Benchmark]]:
    """Single-answer grading, and two games against a baseline."""
    return [MTBench, MTBenchPairwise]
