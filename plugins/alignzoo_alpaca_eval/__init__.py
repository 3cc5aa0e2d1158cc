"""AlpacaEval 2: win rate and length-controlled win rate against GPT-4 Turbo, arXiv:2404.04475."""

from alignzoo import Benchmark, hookimpl
from alignzoo_alpaca_eval.benchmark import AlpacaEval


@hookimpl
def register_benchmarks() -> list[type[Benchmark]]:
    """AlpacaEval."""
    return [AlpacaEval]
