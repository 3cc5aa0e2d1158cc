"""Samples to token ids: where the prompt ends, how a response ends, what is cut.

Prompt and response are tokenised together and cut at the longest prefix that they share with the
prompt alone, because ids(prompt) + ids(response) is not ids(prompt + response). Sampled responses
keep their ids. Nothing here looks for a token to find the prompt: BOS, EOS and padding may be the
same id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jinja2 import TemplateError

from alignzoo.engine.data import convert
from alignzoo.engine.rows import shared_length
from alignzoo.errors import DataError
from alignzoo.types import (
    Batch,
    GroupSample,
    Item,
    LabelledBatch,
    LabelledSample,
    Message,
    PairBatch,
    PairSample,
    PromptText,
    Response,
    Sample,
    TextBatch,
    TextSample,
    Tokens,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

SHORTEST_ROOM = 2  # a prompt that leaves no more tokens than this is too long
UNEVEN = 1.1  # ratio of mean lengths from which a pair set gets a warning
SHOWN = 10  # places that a report lists


@dataclass(frozen=True)
class Limits:
    """How many tokens a sequence may have, and what happens to a longer one."""

    max_length: int = 1024
    max_prompt_length: int | None = None
    too_long: Literal["truncate", "drop", "error"] = "truncate"


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
    return _fitted(_whole(sample, tokenizer, place), tokenizer, limits, place)


def encode_all(
    samples: Sequence[Sample],
    kind: type[Batch],
    tokenizer: Tokenizer,
    limits: Limits,
    places: Sequence[str] = (),
) -> Encoded:
    """The items a kind of batch is made of; raises DataError when none is left.

    An item of a LabelledBatch has a second row: its prompt with the response of the next item that
    has another prompt (the first ones follow the last).
    """
    made = _converted(samples, kind, places)
    items: list[Item] = []
    kept: list[Sample] = []
    dropped: list[str] = []
    truncated = 0
    for sample, place in made:
        whole = _whole(sample, tokenizer, place)
        item = _fitted(whole, tokenizer, limits, place)
        if isinstance(item, TooLong):
            dropped.append(f"{place}: {item.cause}")
            continue
        truncated += item.rows != whole.rows
        items.append(item)
        kept.append(sample)
    if not items:
        raise DataError(
            "no sample is left to train on" + "".join(f"\n{x}" for x in dropped[:SHOWN])
        )
    if issubclass(kind, LabelledBatch):
        items = _with_mismatched(items, kept, tokenizer, limits)
    return Encoded(tuple(items), tuple(kept), _report(items, kind, truncated, dropped))


def _converted(
    samples: Sequence[Sample], kind: type[Batch], places: Sequence[str]
) -> Iterable[tuple[Sample, str]]:
    named = places or [f"sample {number}" for number in range(1, len(samples) + 1)]
    for sample, place in zip(samples, named, strict=True):
        for made in convert(sample, kind, place):
            yield made, place


# --- sequences -----------------------------------------------------------------------------


def prompt_ids(sample: Sample, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids to sample a response from: the prompt, with the opening of the answer's turn."""
    return _prompt_ids(sample.prompt, tokenizer, "the sample")


def _prompt_ids(prompt: PromptText, tokenizer: Tokenizer, place: str) -> tuple[int, ...]:
    if not isinstance(prompt, str):
        ids = _template(prompt, tokenizer, place, opening=True)
    else:
        ids = _text_ids(prompt, tokenizer)
        eos = tokenizer.eos_token_id
        if ids[-1:] == (eos,) and not prompt.endswith(str(tokenizer.eos_token)):
            ids = ids[:-1]  # some tokenizers end every text; this one goes on
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == (bos, bos):
        raise DataError(
            f"{place}: the prompt begins with {tokenizer.bos_token} twice; the tokenizer adds it, "
            f"so take it out of the {'prompt' if isinstance(prompt, str) else 'chat template'}"
        )
    if not ids:
        raise DataError(f"{place}: the prompt has no tokens")
    return ids


def _text_ids(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    return tuple(tokenizer(text, verbose=False)["input_ids"])


def _template(
    messages: Sequence[Message], tokenizer: Tokenizer, place: str, *, opening: bool
) -> tuple[int, ...]:
    """The ids of a chat; the template writes its own BOS, so none is added."""
    if tokenizer.chat_template is None:
        raise DataError(
            f"{place}: the prompt is a list of messages, but the tokenizer has no chat template; "
            "use plain-text prompts or a model with one"
        )
    try:
        return tuple(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                add_generation_prompt=opening,
                tokenize=True,
                return_dict=False,
            )
        )
    except (TemplateError, ValueError) as error:
        raise DataError(f"{place}: the chat template refuses the messages: {error}") from error


def _whole(sample: Sample, tokenizer: Tokenizer, place: str) -> _Whole:
    responses, values = _responses(sample)
    start = _prompt_ids(sample.prompt, tokenizer, place)
    rows = tuple(_sequence(sample.prompt, start, r, tokenizer, place) for r in responses)
    return _Whole(rows or (Tokens(start, ()),), responses, values)


def _responses(sample: Sample) -> tuple[tuple[Response, ...], Mapping[str, float]]:
    match sample:
        case PairSample():
            return (sample.chosen, sample.rejected), {}
        case TextSample():
            return (sample.response,), {}
        case LabelledSample():
            return (sample.response,), {"desirable": float(sample.desirable)}
        case GroupSample():
            return sample.responses, {}
    return (), {}


def _sequence(
    prompt: PromptText, start: tuple[int, ...], response: Response, tokenizer: Tokenizer, place: str
) -> Tokens:
    """Prompt and response ids; `start` are the ids of the prompt alone."""
    if response.ids is not None:
        if not response.ids:
            raise DataError(f"{place}: a response has no tokens")
        return Tokens(start, response.ids)
    if isinstance(prompt, str):
        joint = _text_ids(prompt + response.text, tokenizer)
    else:
        joint = _chat_ids(prompt, start, response, tokenizer, place)
    cut = shared_length(start, joint)
    end = _end_token(tokenizer, place)
    answer = _ended(joint[cut:], response, end, tokenizer, chat=not isinstance(prompt, str))
    if not answer or (answer == (end,) and response.text.strip() not in ("", tokenizer.eos_token)):
        raise DataError(
            f"{place}: the answer gives no tokens; the tokenizer or its chat template leaves it out"
        )
    return Tokens(joint[:cut], answer)


def _chat_ids(
    prompt: Sequence[Message],
    start: tuple[int, ...],
    response: Response,
    tokenizer: Tokenizer,
    place: str,
) -> tuple[int, ...]:
    """The ids of a chat with its answer, which must leave the prompt's text as it was."""
    answer = {"role": "assistant", "content": response.text}
    joint = _template([*prompt, answer], tokenizer, place, opening=False)
    if shared_length(start, joint) < len(start):
        asked = tokenizer.decode(_template(prompt, tokenizer, place, opening=False)).rstrip()
        if not tokenizer.decode(joint).startswith(asked):
            raise DataError(
                f"{place}: the chat template writes the prompt in another way once an answer "
                "follows, so prompt and answer cannot be told apart; use another template"
            )
    return joint


def _ended(
    answer: tuple[int, ...], response: Response, end: int, tokenizer: Tokenizer, *, chat: bool
) -> tuple[int, ...]:
    """The answer with one end token last, or none if the response was cut.

    White space after the end token goes; so does what a template writes after a chat's last turn.
    """
    bare = len(answer)
    while bare and not tokenizer.decode([answer[bare - 1]]).strip():
        bare -= 1
    has_end = bare > 0 and answer[bare - 1] == end
    if has_end or chat:
        answer = answer[:bare]
    if response.ended:
        return answer if has_end else (*answer, end)
    return answer[:-1] if has_end else answer


def _end_token(tokenizer: Tokenizer, place: str) -> int:
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise DataError(f"{place}: the tokenizer has no end-of-sequence token to end answers with")
    return end


# --- length --------------------------------------------------------------------------------


def _fitted(whole: _Whole, tokenizer: Tokenizer, limits: Limits, place: str) -> Item | TooLong:
    cause = _too_long(whole, limits)
    if cause and limits.too_long == "error":
        raise DataError(f"{place}: {cause}")
    if cause:
        return TooLong(cause)
    pairs = zip(whole.rows, whole.responses or (Response(""),), strict=True)
    rows = tuple(_cut(row, response, tokenizer, limits) for row, response in pairs)
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


def _cut(row: Tokens, response: Response, tokenizer: Tokenizer, limits: Limits) -> Tokens:
    """The row within `max_length`; an answer given as text still ends with the end token."""
    room = limits.max_length - len(row.prompt)
    if len(row.response) <= room:
        return row
    if response.ids is not None or not response.ended:
        return Tokens(row.prompt, row.response[:room])
    end = _end_token(tokenizer, "a cut answer")
    return Tokens(row.prompt, (*row.response[: room - 1], end))


# --- mismatched rows -----------------------------------------------------------------------


def _with_mismatched(
    items: Sequence[Item], samples: Sequence[Sample], tokenizer: Tokenizer, limits: Limits
) -> list[Item]:
    """Add to each item its prompt with an answer to another prompt, cut to `max_length`."""
    paired = []
    for i, j in enumerate(_next_different([sample.prompt for sample in samples])):
        response, prompt = _responses(samples[j])[0][0], samples[i].prompt
        start = _prompt_ids(prompt, tokenizer, "the sample")
        row = _sequence(prompt, start, response, tokenizer, "the sample")
        row = _cut(row, response, tokenizer, limits)
        paired.append(Item((*items[i].rows, row), items[i].values))
    return paired


def _next_different(prompts: Sequence[PromptText]) -> list[int]:
    """For each place in the cycle, the next one that holds another prompt."""
    n = len(prompts)
    if all(prompt == prompts[0] for prompt in prompts):
        raise DataError("labelled answers need at least two different prompts; all are the same")
    following = [0] * (2 * n)
    for i in range(2 * n - 2, -1, -1):
        changes = prompts[i % n] != prompts[(i + 1) % n]
        following[i] = (i + 1) % n if changes else following[i + 1]
    return following[:n]


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
        yield f"{len(dropped)} of {total} samples are too long and left out, first {dropped[0]}"
    if truncated:
        yield f"{truncated} of {total} samples are cut to the length limit"
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
    before = _text(prompt, tokenizer)
    whole = _text([*prompt, *body], tokenizer)
    return whole[shared_length(before, whole) :]


def _text(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def stop_ids(tokenizer: Tokenizer, stop: Sequence[str]) -> tuple[int, ...]:
    """The ids that end a response: the tokens of these names, by default end-of-sequence."""
    if not stop:
        return (_end_token(tokenizer, "sampling.stop"),)
    return tuple(dict.fromkeys(_stop_id(tokenizer, name) for name in stop))


def _stop_id(tokenizer: Tokenizer, name: str) -> int:
    number = tokenizer.convert_tokens_to_ids(name)
    if isinstance(number, int) and tokenizer.convert_ids_to_tokens(number) == name:
        return number
    parts = ", ".join(repr(part) for part in tokenizer.tokenize(name))
    raise DataError(
        f"sampling.stop: {name!r} is not one token of the tokenizer, which writes it as "
        f"{parts or 'nothing'}; name a single token"
    )
