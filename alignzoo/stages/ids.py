"""Every id means the same to every model that reads it, or the stage does not start."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignzoo.contract.errors import AlignzooError, DataError
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import Item, Tokens
from alignzoo.data.reader import Embedding
from alignzoo.data.vocabulary import Vocabulary, difference, other_tokens, vocabulary_of
from alignzoo.engine.models.bounds import Bounds
from alignzoo.engine.models.fit import check_end, embedding_rows
from alignzoo.engine.models.load import load_tokenizer
from alignzoo.stages.context import StageContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Largest:
    """The largest id in the rows of a stage, and where it stands."""

    number: int = 0
    place: str = ""


def largest_of(rows: Iterable[tuple[str, Tokens]]) -> Largest:
    """That of any number of rows with their places."""
    found = (Largest(max((*row.prompt, *row.response)), place) for place, row in rows)
    return max(found, key=lambda one: one.number, default=Largest())


def rows_of(items: Iterable[Item], places: Iterable[str]) -> Iterable[tuple[str, Tokens]]:
    """All rows of items with the places of the samples they were made of."""
    for item, place in zip(items, places, strict=True):
        for rows in (item.rows, *item.views.values()):
            yield from ((place, row) for row in rows)


def check_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, largest: Largest
) -> None:
    """Raises DataError when the stage holds an id without a row in the model's embedding."""
    check_end(model, tokenizer, name)
    rows = embedding_rows(model)
    if largest.number >= rows:
        token = tokenizer.convert_ids_to_tokens(largest.number)
        lacks = Embedding(name, rows).lacks(str(token), largest.number)
        raise DataError(f"{largest.place}: holds {lacks}")


def check_ids(
    main: str,
    refs: Mapping[str, ModelRef],
    tokenizer: PreTrainedTokenizerBase,
    bounds: Mapping[ModelRef, Bounds],
    context: StageContext,
    scoring: Container[str] = (),
) -> None:
    """Compare the tokenizers of all models with that of the main one, which makes the rows.

    `refs` has a model for each role or column; those in `scoring` have a scalar head, to which no
    token is an end. Raises DataError when an id means something else to one of them.
    """
    own, rows = vocabulary_of(tokenizer), bounds[refs[main]].ids
    for role, ref in refs.items():
        if ref == refs[main]:
            continue
        place = f"{context.name}, {role}"
        other = known_vocabulary(ref, context, bounds[ref].ends)
        if other is None:
            context.progress.note(f"{place}: no tokenizer beside '{ref.name}' to compare ids with")
        elif what := (other_tokens if role in scoring else difference)(own, other, rows):
            raise DataError(
                f"{place}: '{ref.name}' does not read ids as '{refs[main].name}' does: {what}; "
                "take models with one tokenizer"
            )
        elif own.template != other.template:
            context.progress.note(f"{place}: '{ref.name}' has another chat template; unused")


def known_vocabulary(
    ref: ModelRef, context: StageContext, ends: Iterable[int]
) -> Vocabulary | None:
    """The ids of a model as its tokenizer reads them; None when it comes without one."""
    try:
        tokenizer = load_tokenizer(context.registry.hooks, ref)
    except AlignzooError:
        return None
    return vocabulary_of(tokenizer, ends)
