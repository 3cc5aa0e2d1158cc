"""A reward model with a tokenizer of its own is given the text, not the policy's ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alignzoo.contract.errors import AlignzooError, DataError
from alignzoo.contract.evaluation import Answer
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import Sample, Tokens
from alignzoo.data.ends import end_ids
from alignzoo.data.reader import Embedding, Reader, Rules
from alignzoo.data.sequences import Start, prompt_start, sequence
from alignzoo.data.vocabulary import difference, vocabulary_of
from alignzoo.engine.models.bounds import Bounds
from alignzoo.engine.models.context import context_of, why_context
from alignzoo.engine.models.load import load_tokenizer
from alignzoo.stages.context import StageContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rereader:
    """Prompts and answers in the ids of another tokenizer, with its template and its end token."""

    reader: Reader
    starts: Sequence[Start]  # the prompts in its ids
    name: str

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The other model's."""
        return self.reader.tokenizer

    def row(self, number: int, answer: Answer) -> Tokens:
        """An answer to a prompt as the other model was trained to read it."""
        response, start = replace(answer.response, ids=None), self.starts[number]
        if not response.ended and not response.text.strip():
            return Tokens(start.ids, ())
        return sequence(answer.sample, start, response, self.reader, self.name).tokens


def rereader_for(
    ref: ModelRef,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sample],
    bounds: Bounds,
    rules: Rules,
    context: StageContext,
) -> Rereader | None:
    """None when the model reads every id, and the one that ends an answer, as the policy does.

    `bounds` are the model's own.

    Raises DataError when the model's template cannot write one of the prompts.
    """
    place = f"{context.name}, reward model '{ref.name}'"
    try:
        other = load_tokenizer(context.registry.hooks, ref)
    except AlignzooError:
        context.progress.note(f"{place}: no tokenizer beside it, so it is given the policy's ids")
        return None
    what = difference(vocabulary_of(tokenizer), vocabulary_of(other))
    if not what:
        return None
    context.progress.note(f"{place} has another tokenizer and is given the text: {what}")
    embedding = Embedding(ref.name, bounds.ids)
    reader = Reader(other, rules, end_ids(other, bounds.ends), embedding)
    starts = [prompt_start(sample, reader, place) for sample in samples]
    return Rereader(reader, starts, place)


def check_context(model: PreTrainedModel, rows: Sequence[Tokens], name: str) -> None:
    """Raises DataError when a row is longer than the model was made for."""
    limit = context_of(model.config)
    longest = max(map(len, rows), default=0)
    if limit is not None and longest > limit:
        raise DataError(
            f"reward model '{name}': prompt and answer have {longest} tokens, its context is "
            f"{limit}{why_context(model.config)}; "
            "lower sampling.max_new_tokens or data.max_prompt_length"
        )
