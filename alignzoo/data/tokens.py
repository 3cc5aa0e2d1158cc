"""Samples to items of token ids: what is cut, what is left out, and a report of both."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from alignzoo.contract.choosing import fills_itself
from alignzoo.contract.errors import DataError, counted
from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.types import (
    Batch,
    GroupSample,
    Item,
    LabelledBatch,
    LabelledSample,
    PairBatch,
    PairSample,
    Response,
    RolloutBatch,
    Sample,
    TextSample,
    Tokens,
)
from alignzoo.data.collecting import uncollected
from alignzoo.data.conversions import convert
from alignzoo.data.ends import end_ids
from alignzoo.data.reader import Reader, reader_of
from alignzoo.data.report import SHOWN, Report, report_of
from alignzoo.data.rounds import Steps, at_once, in_rounds
from alignzoo.data.sequences import prompt_start, sequence_steps, start_steps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

SHORTEST_ROOM = 2  # a prompt that leaves no more tokens than this is too long


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
class Encoded:
    """Items in the order of the samples they were made of."""

    items: tuple[Item, ...]
    samples: tuple[Sample, ...]  # samples[i] became items[i]
    report: Report
    places: tuple[str, ...] = ()  # where samples[i] stands


@dataclass(frozen=True)
class Read:
    """A sample's sequences before anything is cut, and what was seen while it was read."""

    rows: tuple[Tokens, ...]
    left_out: tuple[str, ...] = ()  # what the chat template did not write, in words
    spells: bool = False  # control tokens stand in it that are read as letters
    empty: int = 0  # answers that are an end alone


# What became of every sample: what was read of all that it is converted to, or why nothing was.
AllRead: TypeAlias = "list[list[Read] | str]"
Remember: TypeAlias = Callable[[Callable[[], AllRead]], AllRead]


@dataclass(frozen=True)
class _Whole:
    """What was read of a sample, beside its answers and numbers."""

    read: Read
    responses: tuple[Response, ...]
    values: Mapping[str, float]


def anew(read: Callable[[], AllRead]) -> AllRead:
    """Nothing is remembered."""
    return read()


def encode(
    sample: Sample, tokenizer: Tokenizer | Reader, limits: Limits, place: str = "the sample"
) -> Item | TooLong:
    """The item of one sample: one sequence per answer, or the bare prompt if it has none.

    A prompt is never cut: one longer than `max_prompt_length`, or that leaves two tokens or fewer,
    is too long under every setting. Raises DataError when the tokens cannot be right (two BOS, an
    answer without tokens, no end token to append), and for a long sample if `too_long` is "error".
    """
    reader, limits = _ending(reader_of(tokenizer), limits)
    return _fitted(
        _Whole(at_once(_read(sample, reader, place)), *responses_of(sample)), limits, place
    )


@uncollected()
def encode_all(
    samples: Sequence[Sample],
    kind: type[Batch],
    tokenizer: Tokenizer | Reader,
    limits: Limits,
    places: Sequence[str] = (),
    remember: Remember = anew,
) -> Encoded:
    """The items a kind of batch is made of; raises DataError when none is left.

    A sample that cannot be used is left out and named in `report.bad`. An item of a LabelledBatch
    has a second row: its prompt with a response to another prompt. `remember` may know what was
    read of these samples before.
    """
    reader, limits = _ending(reader_of(tokenizer), limits)
    items: list[Item] = []
    kept: list[Sample] = []
    found: list[str] = []
    dropped: list[str] = []
    truncated = 0
    wholes, bad, unlearnt = _wholes(samples, kind, reader, places, remember)
    for sample, place, whole in wholes:
        item = _fitted(whole, limits, place)
        if isinstance(item, TooLong):
            dropped.append(f"{place}: {item.cause}")
            continue
        truncated += item.rows != whole.read.rows
        items.append(item)
        kept.append(sample)
        found.append(place)
    if not items:
        raise DataError(_nothing_left(dropped, bad, limits))
    empty = _empty([(place, whole) for _, place, whole in wholes])
    if issubclass(kind, LabelledBatch):
        items = _with_mismatched(items, kept, reader, limits)
    report = replace(
        report_of(items, kind, truncated, dropped),
        bad=tuple(bad),
        empty=empty[:SHOWN],
        n_empty=len(empty),
        unlearnt=unlearnt,
        left_out=Counter(part for *_, whole in wholes for part in whole.read.left_out),
        spelt=sum(whole.read.spells for *_, whole in wholes),
        equal=sum(item.rows[0] == item.rows[1] for item in items)
        if issubclass(kind, PairBatch)
        else 0,
    )
    return Encoded(tuple(items), tuple(kept), report, tuple(found))


def _ending(reader: Reader, limits: Limits) -> tuple[Reader, Limits]:
    """Both with the ids that end an answer."""
    limits = limits.ended_by(reader.tokenizer)
    return replace(reader, ends=limits.ends), limits


def _wholes(
    samples: Sequence[Sample],
    kind: type[Batch],
    reader: Reader,
    places: Sequence[str],
    remember: Remember,
) -> tuple[list[tuple[Sample, str, _Whole]], list[str], int]:
    """What is made of the samples, which of them cannot be used, with the cause, and how many
    nothing is learnt of.
    """
    named = places or [f"sample {number}" for number in range(1, len(samples) + 1)]
    pairs = list(zip(samples, named, strict=True))

    def read() -> AllRead:
        every = in_rounds([_made(sample, kind, reader, place) for sample, place in pairs], reader)
        return [str(found) if isinstance(found, DataError) else found for found in every]

    every = remember(read)
    made: list[tuple[Sample, str, _Whole]] = []
    for (sample, place), found in zip(pairs, every, strict=True):
        if isinstance(found, str) or not found:
            continue
        for one, its in zip(convert(sample, kind, place), found, strict=True):
            made.append((one, place, _Whole(its, *responses_of(one))))
    return made, [x for x in every if isinstance(x, str)], sum(x == [] for x in every)


def _made(sample: Sample, kind: type[Batch], reader: Reader, place: str) -> Steps[list[Read]]:
    """What is read of one sample."""
    made = []
    for one in convert(sample, kind, place):
        made.append((yield from _read(one, reader, place)))
        _check_values(responses_of(one)[1], kind, place)
    return made


def _check_values(values: Mapping[str, float], kind: type[Batch], place: str) -> None:
    """Raise DataError without a number that a batch of given data holds."""
    free = issubclass(kind, RolloutBatch | GroupBatch) or fills_itself(kind)
    wanted = {f.name for f in fields(kind)} - {f.name for f in fields(Batch)}
    if lost := [] if free else sorted(wanted - values.keys()):
        what = f"has no number '{lost[0]}', which the method's batch {kind.__name__} holds"
        raise DataError(f"{place}: {what} for every row; give the row one")


def _empty(wholes: Sequence[tuple[str, _Whole]]) -> tuple[str, ...]:
    """The places of rows with an answer that is an end alone; DataError when all answers are."""
    found = dict.fromkeys(place for place, whole in wholes if whole.read.empty)
    if found and all(whole.read.empty == len(whole.read.rows) for _, whole in wholes):
        raise DataError(
            f"{next(iter(found))}: the answer is empty, and so are all others; nothing but to end "
            "at once can be learnt from them: name the column that holds the answers"
        )
    return tuple(found)


def _nothing_left(dropped: Sequence[str], bad: Sequence[str], limits: Limits) -> str:
    if bad:
        more = counted(len(bad) - 1, "more row")
        return bad[0] + (f"\n... and {more}" if len(bad) > 1 else "")
    long = f"every sample is too long; raise max_length ({limits.max_length})"
    cause = long if dropped else "no sample has an answer to learn from, all are undesirable"
    return "\n".join([cause, *dropped[:SHOWN]])


# --- samples --------------------------------------------------------------------------------


def prompt_ids(
    sample: Sample, tokenizer: Tokenizer | Reader, place: str = "the prompt"
) -> tuple[int, ...]:
    """The ids to sample a response from: the prompt, with the opening of the answer's turn."""
    return prompt_start(sample, reader_of(tokenizer), place).ids


def _read(sample: Sample, reader: Reader, place: str) -> Steps[Read]:
    start = yield from start_steps(sample, reader, place)
    rows = []
    for response in responses_of(sample)[0]:
        row = yield from sequence_steps(sample, start, response, reader, place)
        rows.append(row)
    tokens = tuple(row.tokens for row in rows)
    lost = [*start.left_out, *("parts of answers" for row in rows if row.left_out)]
    spells = start.spells or any(row.spells for row in rows)
    prompt_alone = (Tokens(start.ids, ()),)
    lost = list(dict.fromkeys(lost))
    empty = sum(row.empty for row in rows)
    return Read(tokens or prompt_alone, tuple(lost), spells, empty)


def responses_of(sample: Sample) -> tuple[tuple[Response, ...], Mapping[str, float]]:
    """The answers of a sample in the order of its rows, and its numbers."""
    match sample:
        case PairSample():
            return (sample.chosen, sample.rejected), numbers_of(sample.meta)
        case TextSample():
            return (sample.response,), numbers_of(sample.meta)
        case LabelledSample(_, response, desirable, meta):
            return (response,), {**numbers_of(meta), "desirable": float(desirable)}
        case GroupSample():
            return sample.responses, {}
    return (), {}


def numbers_of(meta: Mapping[str, object]) -> dict[str, float]:
    """What a kind of batch may ask for by name: the margin of a pair, say."""
    return {name: float(x) for name, x in meta.items() if isinstance(x, int | float)}


# --- length --------------------------------------------------------------------------------


def _fitted(whole: _Whole, limits: Limits, place: str) -> Item | TooLong:
    cause = _too_long(whole, limits)
    if cause and limits.too_long == "error":
        raise DataError(f"{place}: {cause}")
    if cause:
        return TooLong(cause)
    pairs = zip(whole.read.rows, whole.responses or (Response(""),), strict=True)
    rows = tuple(cut(row, response, limits) for row, response in pairs)
    return Item(rows, whole.values)


def _too_long(whole: _Whole, limits: Limits) -> str:
    """Why the sample cannot be used within the limits, or an empty string."""
    prompt = max(len(row.prompt) for row in whole.read.rows)
    longest = max(len(row) for row in whole.read.rows)
    if limits.max_prompt_length is not None and prompt > limits.max_prompt_length:
        return f"the prompt has {prompt} tokens, max_prompt_length is {limits.max_prompt_length}"
    if prompt >= limits.max_length - SHORTEST_ROOM:
        return f"the prompt has {prompt} tokens, which leaves no room within {limits.max_length}"
    if limits.too_long != "truncate" and longest > limits.max_length:
        return f"it has {longest} tokens, max_length is {limits.max_length}"
    return ""


def cut(row: Tokens, response: Response, limits: Limits) -> Tokens:
    """A row within `max_length`; an answer given as text still ends with its end token."""
    room = limits.max_length - len(row.prompt)
    if len(row.response) <= room:
        return row
    if row.learnt is not None:
        return Tokens(row.prompt, row.response[:room], row.learnt[:room])
    if response.ids is not None or not response.ended:
        return Tokens(row.prompt, row.response[:room])
    return Tokens(row.prompt, (*row.response[: room - 1], row.response[-1]))


# --- mismatched rows -----------------------------------------------------------------------


def _with_mismatched(
    items: Sequence[Item], samples: Sequence[Sample], reader: Reader, limits: Limits
) -> list[Item]:
    """Add to each item its prompt with an answer to another prompt, cut to `max_length`."""
    others = [responses_of(samples[j])[0][0] for j in _partners(samples)]
    steps = [_mismatched(sample, y, reader) for sample, y in zip(samples, others, strict=True)]
    paired = []
    for item, other, row in zip(items, others, in_rounds(steps, reader), strict=True):
        if isinstance(row, DataError):
            raise row
        paired.append(Item((*item.rows, cut(row, other, limits)), item.values))
    return paired


def _mismatched(sample: Sample, other: Response, reader: Reader) -> Steps[Tokens]:
    start = yield from start_steps(sample, reader, "the sample")
    row = yield from sequence_steps(sample, start, other, reader, "the sample")
    return row.tokens


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


# --- sampled ids ---------------------------------------------------------------------------


def decode_answer(
    prompt: Sequence[int],
    response: Sequence[int],
    reader: Reader,
    stop: Collection[int] = (),
    *,
    ended: bool,
) -> Response:
    """A sampled answer with its ids and both its texts: with and without special tokens."""
    body = _body(response, stop)
    text, plain = (reader.continuation(prompt, body, special=s) for s in (True, False))
    return Response(text, tuple(response), ended, None if plain == text else plain)


def _body(response: Sequence[int], stop: Collection[int]) -> Sequence[int]:
    return response[:-1] if response and response[-1] in stop else response
