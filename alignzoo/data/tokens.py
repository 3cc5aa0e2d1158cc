"""Samples to items of token ids: what is cut, what is left out, and a report of both."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import (
    Batch,
    GroupSample,
    Item,
    LabelledBatch,
    LabelledSample,
    PairBatch,
    PairSample,
    Response,
    Sample,
    TextBatch,
    TextSample,
    Tokens,
)
from alignzoo.data.ends import end_ids
from alignzoo.data.rows import shared_length
from alignzoo.data.samples import convert
from alignzoo.data.sequences import decoded, prompt_tokens, sequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

SHORTEST_ROOM = 2  # a prompt that leaves no more tokens than this is too long
UNEVEN = 1.1  # ratio of mean lengths from which a pair set gets a warning
SHOWN = 3  # places that a report lists


@dataclass(frozen=True)
class Limits:
    """How many tokens a sequence may have, what happens to a longer one, and what ends it."""

    max_length: int = 1024
    max_prompt_length: int | None = None
    too_long: Literal["truncate", "drop", "error"] = "truncate"
    ends: tuple[int, ...] = ()  # ids that end an answer; none given: as far as the tokenizer knows

    def ended_by(self, tokenizer: Tokenizer) -> Limits:
        """These limits with the ends filled in."""
        return self if self.ends else replace(self, ends=end_ids(tokenizer))


@dataclass(frozen=True)
class TooLong:
    """Why a sample is left out."""

    cause: str


@dataclass(frozen=True)
class Report:
    """What became of the samples."""

    items: int
    truncated: int
    dropped: int
    dropped_at: tuple[str, ...]  # the first places with their causes
    prompt_length: float  # mean, in tokens
    response_lengths: Mapping[str, float]  # column -> mean, in tokens, stop token included
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoded:
    """Items in the order of the samples they were made of."""

    items: tuple[Item, ...]
    samples: tuple[Sample, ...]  # samples[i] became items[i]
    report: Report
    places: tuple[str, ...] = ()  # where samples[i] stands


@dataclass(frozen=True)
class _Whole:
    """A sample's sequences before anything is cut."""

    rows: tuple[Tokens, ...]
    responses: tuple[Response, ...]
    values: Mapping[str, float] = field(default_factory=dict)


def encode(
    sample: Sample, tokenizer: Tokenizer, limits: Limits, place: str = "the sample"
) -> Item | TooLong:
    """The item of one sample: one sequence per answer, or the bare prompt if it has none.

    A prompt is never cut: one longer than `max_prompt_length`, or that leaves two tokens or fewer,
    is too long under every setting. Raises DataError when the tokens cannot be right (two BOS, an
    answer without tokens, no end token to append), and for a long sample if `too_long` is "error".
    """
    limits = limits.ended_by(tokenizer)
    return _fitted(_whole(sample, tokenizer, limits, place), limits, place)


def encode_all(
    samples: Sequence[Sample],
    kind: type[Batch],
    tokenizer: Tokenizer,
    limits: Limits,
    places: Sequence[str] = (),
) -> Encoded:
    """The items a kind of batch is made of; raises DataError when none is left.

    An item of a LabelledBatch has a second row: its prompt with a response to another prompt.
    """
    limits = limits.ended_by(tokenizer)
    made = _converted(samples, kind, places)
    items: list[Item] = []
    kept: list[Sample] = []
    found: list[str] = []
    dropped: list[str] = []
    truncated = 0
    for sample, place in made:
        whole = _whole(sample, tokenizer, limits, place)
        item = _fitted(whole, limits, place)
        if isinstance(item, TooLong):
            dropped.append(f"{place}: {item.cause}")
            continue
        truncated += item.rows != whole.rows
        items.append(item)
        kept.append(sample)
        found.append(place)
    if not items:
        long = f"every sample is too long; raise max_length ({limits.max_length})"
        cause = long if dropped else "no sample has an answer to learn from, all are undesirable"
        raise DataError("\n".join([cause, *dropped[:SHOWN]]))
    if issubclass(kind, LabelledBatch):
        items = _with_mismatched(items, kept, tokenizer, limits)
    report = _report(items, kind, truncated, dropped)
    return Encoded(tuple(items), tuple(kept), report, tuple(found))


def _converted(
    samples: Sequence[Sample], kind: type[Batch], places: Sequence[str]
) -> Iterable[tuple[Sample, str]]:
    named = places or [f"sample {number}" for number in range(1, len(samples) + 1)]
    for sample, place in zip(samples, named, strict=True):
        for made in convert(sample, kind, place):
            yield made, place


# --- samples --------------------------------------------------------------------------------


def prompt_ids(sample: Sample, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids to sample a response from: the prompt, with the opening of the answer's turn."""
    return prompt_tokens(sample.prompt, tokenizer, "the sample")


def _whole(sample: Sample, tokenizer: Tokenizer, limits: Limits, place: str) -> _Whole:
    responses, values = _responses(sample)
    start = prompt_tokens(sample.prompt, tokenizer, place)
    rows = tuple(
        sequence(sample.prompt, start, r, tokenizer, limits.ends, place) for r in responses
    )
    return _Whole(rows or (Tokens(start, ()),), responses, values)


def _responses(sample: Sample) -> tuple[tuple[Response, ...], Mapping[str, float]]:
    match sample:
        case PairSample():
            return (sample.chosen, sample.rejected), _numbers(sample.meta)
        case TextSample():
            return (sample.response,), {}
        case LabelledSample():
            return (sample.response,), {"desirable": float(sample.desirable)}
        case GroupSample():
            return sample.responses, {}
    return (), {}


def _numbers(meta: Mapping[str, object]) -> dict[str, float]:
    """What a kind of batch may ask for by name: the margin of a pair, say."""
    return {name: float(x) for name, x in meta.items() if isinstance(x, int | float)}


# --- length --------------------------------------------------------------------------------


def _fitted(whole: _Whole, limits: Limits, place: str) -> Item | TooLong:
    cause = _too_long(whole, limits)
    if cause and limits.too_long == "error":
        raise DataError(f"{place}: {cause}")
    if cause:
        return TooLong(cause)
    pairs = zip(whole.rows, whole.responses or (Response(""),), strict=True)
    rows = tuple(_cut(row, response, limits) for row, response in pairs)
    return Item(rows, whole.values)


def _too_long(whole: _Whole, limits: Limits) -> str:
    """Why the sample cannot be used within the limits, or an empty string."""
    prompt = max(len(row.prompt) for row in whole.rows)
    longest = max(len(row) for row in whole.rows)
    if limits.max_prompt_length is not None and prompt > limits.max_prompt_length:
        return f"the prompt has {prompt} tokens, max_prompt_length is {limits.max_prompt_length}"
    if prompt >= limits.max_length - SHORTEST_ROOM:
        return f"the prompt has {prompt} tokens, which leaves no room within {limits.max_length}"
    if limits.too_long != "truncate" and longest > limits.max_length:
        return f"it has {longest} tokens, max_length is {limits.max_length}"
    return ""


def _cut(row: Tokens, response: Response, limits: Limits) -> Tokens:
    """The row within `max_length`; an answer given as text still ends with its end token."""
    room = limits.max_length - len(row.prompt)
    if len(row.response) <= room:
        return row
    if response.ids is not None or not response.ended:
        return Tokens(row.prompt, row.response[:room])
    return Tokens(row.prompt, (*row.response[: room - 1], row.response[-1]))


# --- mismatched rows -----------------------------------------------------------------------


def _with_mismatched(
    items: Sequence[Item], samples: Sequence[Sample], tokenizer: Tokenizer, limits: Limits
) -> list[Item]:
    """Add to each item its prompt with an answer to another prompt, cut to `max_length`."""
    paired = []
    for item, sample, j in zip(items, samples, _partners(samples), strict=True):
        other = _responses(samples[j])[0][0]
        start = prompt_tokens(sample.prompt, tokenizer, "the sample")
        row = sequence(sample.prompt, start, other, tokenizer, limits.ends, "the sample")
        paired.append(Item((*item.rows, _cut(row, other, limits)), item.values))
    return paired


def _partners(samples: Sequence[Sample]) -> list[int]:
    """For each sample, the next one with another prompt in a cycle of fixed random order.

    In the data's order the two answers of a former pair would both meet the next pair's first.
    """
    n = len(samples)
    if all(sample.prompt == samples[0].prompt for sample in samples):
        raise DataError("labelled answers need at least two different prompts; all are the same")
    order = random.Random(n).sample(range(n), n)
    partners = [0] * n
    for i in range(2 * n - 2, -1, -1):  # twice round, so that the last ones see the first
        here, after = order[i % n], order[(i + 1) % n]
        differs = samples[here].prompt != samples[after].prompt
        partners[here] = after if differs else partners[after]
    return partners


# --- the report ----------------------------------------------------------------------------


def _report(
    items: Sequence[Item], kind: type[Batch], truncated: int, dropped: Sequence[str]
) -> Report:
    lengths = {
        name: sum(len(item.rows[k].response) for item in items) / len(items)
        for k, name in enumerate(_columns(items, kind))
    }
    prompt = sum(len(item.rows[0].prompt) for item in items) / len(items)
    shown = tuple(dropped[:SHOWN])
    warnings = _warnings(len(items), truncated, dropped, lengths)
    return Report(len(items), truncated, len(dropped), shown, prompt, lengths, tuple(warnings))


def _columns(items: Sequence[Item], kind: type[Batch]) -> tuple[str, ...]:
    if issubclass(kind, PairBatch):
        return ("chosen", "rejected")
    if issubclass(kind, LabelledBatch):
        return ("matched", "mismatched")
    return ("response",) if issubclass(kind, TextBatch) and items[0].rows[0].response else ()


def _warnings(
    items: int, truncated: int, dropped: Sequence[str], lengths: Mapping[str, float]
) -> Iterable[str]:
    total = items + len(dropped)
    if dropped:
        more = "; ..." if len(dropped) > SHOWN else ""
        first = "; ".join(dropped[:SHOWN])
        yield f"{len(dropped)} of {total} items are too long and left out: {first}{more}"
    if truncated:
        yield f"{truncated} of {total} items are cut to the length limit"
    if "chosen" in lengths:
        longer, shorter = sorted(("chosen", "rejected"), key=lambda name: -lengths[name])
        ratio = lengths[longer] / lengths[shorter]
        if ratio > UNEVEN:
            yield (
                f"{longer} answers are {ratio - 1:.0%} longer than {shorter} ones (mean "
                f"{lengths[longer]:.1f} and {lengths[shorter]:.1f} tokens): a model may learn "
                "length instead of preference"
            )


# --- sampled ids ---------------------------------------------------------------------------


def decode_response(
    prompt: Sequence[int],
    response: Sequence[int],
    tokenizer: Tokenizer,
    stop: Collection[int] = (),
) -> str:
    """The text of a response as it goes on from its prompt, with its leading space.

    Special tokens are left out, and so is a last token that is one of `stop`.
    """
    body = response[:-1] if response and response[-1] in stop else response
    before = decoded(prompt, tokenizer, special=False)
    whole = decoded([*prompt, *body], tokenizer, special=False)
    return whole[shared_length(before, whole) :]
