"""The responses that are looked at: read from files, or given by whoever sampled them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import DataError
from alignzoo.contract.types import (
    GroupSample,
    Item,
    LabelledSample,
    PairSample,
    PromptSample,
    PromptText,
    Response,
    Sample,
    TextSample,
    Tokens,
)
from alignzoo.contract.views import Case
from alignzoo.data.reader import Reader
from alignzoo.data.samples import DataSource, load_samples
from alignzoo.data.tokens import Limits, TooLong, encode
from alignzoo.data.views import Views


@dataclass(frozen=True)
class Answered:
    """A response to a prompt: as text, and as the tokens that the models read."""

    place: str  # "facts.jsonl:3"
    label: str  # which of several responses it is; empty for an only one
    prompt: PromptSample
    response: Response
    tokens: Tokens
    case: Case | None = None  # what the views of a method are made of

    @property
    def near(self) -> str:
        """The place without the folders above its file."""
        return self.place.rpartition("/")[2]

    @property
    def prompt_text(self) -> str:
        """The prompt for people."""
        return text_of(self.prompt.prompt)


def text_of(prompt: PromptText) -> str:
    """A prompt as one text; the turns of a chat with their roles."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{turn.get('role')}: {turn.get('content') or ''}" for turn in prompt)


def read_file(file: Path, limit: int) -> tuple[list[tuple[str, Sample]], bool]:
    """The first samples of a file with their places, and whether there are more."""
    loaded = load_samples(DataSource(str(file), limit=limit + 1, max_bad=None))
    found = list(zip(loaded.places, loaded.samples, strict=True))
    return found[:limit], len(found) > limit


def unanswered(samples: Iterable[tuple[str, Sample]]) -> bool:
    """Whether these are prompts alone."""
    return all(isinstance(sample, PromptSample) for _, sample in samples)


def answered(
    samples: Iterable[tuple[str, Sample]], reader: Reader, context: int | None
) -> list[Answered]:
    """Every response of the samples as tokens.

    Raises DataError for a prompt alone among responses, and for a row beyond the models' context.
    """
    limits = Limits(sys.maxsize, ends=reader.ends)
    found = []
    for place, sample in samples:
        for number, (label, text) in enumerate(_responses(sample, place)):
            item = encode(text, reader, limits, place)
            if isinstance(item, TooLong):  # nothing is, without a limit
                raise DataError(f"{place}: {item.cause}")
            prompt = PromptSample(text.prompt, text.meta)
            case = _case(sample, number)
            found.append(Answered(place, label, prompt, text.response, item.rows[0], case))
    check_lengths(found, context)
    return found


def items_of(
    rows: Sequence[Answered], algorithm: Algorithm[Any], reader: Reader, context: int | None
) -> list[Item]:
    """The rows with the views that a method's roles see.

    Raises DataError where the method makes no view of a row, or one beyond the models' context.
    """
    views = Views.of(algorithm)
    if views is None:
        return [Item((row.tokens,)) for row in rows]
    items = []
    for row in rows:
        case = row.case or Case(row.prompt)
        prompts = views.prompts(case, reader, row.place)
        seen = {name: replace(row.tokens, prompt=ids) for name, ids in prompts.items()}
        longest = max(seen.values(), key=len)
        check_lengths([replace(row, tokens=longest)], context)
        items.append(Item((row.tokens,), views={name: (own,) for name, own in seen.items()}))
    return items


def check_lengths(rows: Sequence[Answered], context: int | None) -> None:
    """Raises DataError for the first row that is longer than a model can read."""
    for row in rows:
        if context is not None and len(row.tokens) > context:
            raise DataError(
                f"{row.place}: prompt and response have {len(row.tokens)} tokens, the models' "
                f"context is {context}; shorten the response, or leave the row out"
            )


def _case(sample: Sample, number: int) -> Case:
    """As in training: of samples, the prompt with all answers to it."""
    if isinstance(sample, GroupSample):
        prompt = PromptSample(sample.prompt, sample.meta)
        return Case(prompt, number, sample.responses, sample.scores or ())
    return Case(sample, number)


def _responses(sample: Sample, place: str) -> Iterator[tuple[str, TextSample]]:
    prompt, meta = sample.prompt, sample.meta
    match sample:
        case TextSample():
            yield "", sample
        case LabelledSample():
            label = "desirable" if sample.desirable else "undesirable"
            yield label, TextSample(prompt, sample.response, meta)
        case PairSample():
            yield "chosen", TextSample(prompt, sample.chosen, meta)
            yield "rejected", TextSample(prompt, sample.rejected, meta)
        case GroupSample():
            several = len(sample.responses) > 1
            for number, response in enumerate(sample.responses, 1):
                label = f"answer {number}" if several else ""
                yield label, TextSample(prompt, response, meta)
        case PromptSample():
            raise DataError(
                f"{place}: a prompt without a response among rows that have one; give all rows a "
                "response, or none, and the first model answers"
            )
