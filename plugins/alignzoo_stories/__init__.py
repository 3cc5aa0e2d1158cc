"""Finish the paragraph kindly: prompts, a transparent judge and a benchmark for small story models.

It needs nobody's answers and no other model: prompts come from templates, preferences from the
judge's table of features.
"""

from __future__ import annotations

from alignzoo import Benchmark, Dataset, Judge, hookimpl
from alignzoo_stories.benchmark import StoriesBenchmark
from alignzoo_stories.judge import StoriesJudge
from alignzoo_stories.prompts import StoryPrompts


@hookimpl
def register_datasets() -> list[type[Dataset]]:
    """The prompts."""
    return [StoryPrompts]


@hookimpl
def register_judges() -> list[type[Judge]]:
    """The judge."""
    return [StoriesJudge]


@hookimpl
def register_benchmarks() -> list[type[Benchmark]]:
    """The benchmark."""
    return [StoriesBenchmark]
