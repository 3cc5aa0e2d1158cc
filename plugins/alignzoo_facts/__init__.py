"""A closed world of 80 facts with an exact oracle: data, judges, a benchmark and a base model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo import hookimpl
from alignzoo_facts.benchmark import Facts
from alignzoo_facts.data import HeldOutPrompts, TrainingPrompts, Written
from alignzoo_facts.oracle import Annotator, Oracle
from alignzoo_facts.people import People

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignzoo import Benchmark, Dataset, Judge, ModelRef, Role

MODEL = "facts"


@hookimpl
def register_datasets() -> list[type[Dataset]]:
    """Writers' answers, training questions, held-out questions, pairs that people compared."""
    return [Written, TrainingPrompts, HeldOutPrompts, People]


@hookimpl
def register_judges() -> list[type[Judge]]:
    """The true reward, and a rater with a length bias."""
    return [Oracle, Annotator]


@hookimpl
def register_benchmarks() -> list[type[Benchmark]]:
    """True reward and win rate on held-out questions."""
    return [Facts]


@hookimpl
def load_model(ref: ModelRef, role: Role) -> PreTrainedModel | None:
    """The untrained base model, when the name is "facts"."""
    if ref.name != MODEL:
        return None
    from alignzoo_facts.model import build_model

    return build_model(ref, role)


@hookimpl
def load_tokenizer(ref: ModelRef) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the base model, when the name is "facts"."""
    if ref.name != MODEL:
        return None
    from alignzoo_facts.model import build_tokenizer

    return build_tokenizer()


@hookimpl
def identity(ref: ModelRef) -> str | None:
    """The base model is made by this code from the seed alone."""
    return f"{MODEL} seed {ref.seed}" if ref.name == MODEL else None
