"""Rows of a data file to samples and back: every form that preference data comes in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import (
    GroupSample,
    LabelledSample,
    PairSample,
    PromptSample,
    PromptText,
    Response,
    Sample,
    TextSample,
)
from alignzoo.data.companions import Columns, companions, joined, tools_of
from alignzoo.data.messages import (
    answer_in,
    answerable,
    describe,
    dialogue,
    is_list,
    messages_of,
    text_of,
)

PROMPT_KEYS = ("prompt", "instruction", "question")
CHAT_KEYS = ("messages", "conversations")
ANSWER_KEYS = ("response", "completion", "answer", "output")
ANSWER_TURN = "\n\nAssistant:"  # opens an answer in plain-text transcripts
HUMAN_TURN = "\n\nHuman:"
LABELS: Mapping[Any, bool] = {0: False, 1: True, "undesirable": False, "desirable": True}


@dataclass(frozen=True)
class Reading:
    """A row's sample, and the columns that hold something: those it was made of, and the others."""

    sample: Sample
    used: tuple[str, ...]
    ignored: tuple[str, ...]


def sample_from_row(row: Mapping[str, Any]) -> Sample:
    """The sample a row holds; see `read_row`."""
    return read_row(row).sample


def read_row(row: Mapping[str, Any]) -> Reading:
    """The sample a row holds; raises DataError with the cause (the reader adds the place).

    Known forms, the first that fits: `prompt, responses[, scores]`; `[prompt,] chosen, rejected`;
    `messages` or `conversations`; `prompt, response[, label]`; `prompt`. A column that is null is
    not there. Beside every form: `system`, `history`, `tools` and `meta`; beside `chosen`: a
    `margin`, which goes to `meta`.
    """
    columns = Columns(row)
    sample = _sample(columns, _meta(columns.use("meta")))
    if before := companions(columns):
        sample = replace(sample, prompt=joined(sample.prompt, before))
    if not isinstance(sample.prompt, str) and (tools := tools_of(columns)):
        sample = replace(sample, meta={**sample.meta, "tools": tools})
    return Reading(sample, columns.used, columns.ignored)


def _sample(row: Columns, meta: Mapping[str, Any]) -> Sample:
    if row.get("responses") is not None:
        return _group(row, meta)
    if row.get("chosen") is not None or row.get("rejected") is not None:
        return _pair(row, {**_margin(row.use("margin")), **meta})
    if chat := _first_key(row, CHAT_KEYS):
        return _conversation(row, chat, meta)
    key = _first_key(row, ANSWER_KEYS) or next((key for key in ANSWER_KEYS if key in row), None)
    prompt = _prompt(row)
    return PromptSample(prompt, meta) if key is None else _answered(prompt, key, row, meta)


def row_from_sample(sample: Sample) -> dict[str, Any]:
    """The JSON-able row of a sample; `sample_from_row` gives back an equal sample."""
    row: dict[str, Any] = {"prompt": _prompt_row(sample.prompt)}
    match sample:
        case PairSample():
            row |= {"chosen": _plain(sample.chosen), "rejected": _plain(sample.rejected)}
        case TextSample():
            row |= {"response": _plain(sample.response)}
        case LabelledSample():
            row |= {"response": _plain(sample.response), "label": sample.desirable}
        case GroupSample():
            row |= {"responses": [_plain(response) for response in sample.responses]}
            row |= {"scores": list(sample.scores)} if sample.scores is not None else {}
        case PromptSample():
            pass
    return row | ({"meta": dict(sample.meta)} if sample.meta else {})


def shared_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How long two sequences (texts, ids) begin alike."""
    if one == other[: len(one)]:
        return len(one)  # as usual, and fast
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


# --- the forms -----------------------------------------------------------------------------


def _group(row: Columns, meta: Mapping[str, Any]) -> GroupSample:
    values = row.use("responses")
    if is_list(values) and not values:
        raise DataError("responses is an empty list")
    if not is_list(values):
        raise DataError(f"responses is {describe(values)}, not a list of answers")
    prompt = _prompt(row)
    answers = [_answer(prompt, value, f"responses[{i}]") for i, value in enumerate(values)]
    if any(its_prompt != answers[0][0] for its_prompt, _ in answers):
        raise DataError("the responses answer different prompts")
    responses = tuple(response for _, response in answers)
    return GroupSample(answers[0][0], responses, _scores(row.use("scores"), len(responses)), meta)


def _pair(row: Columns, meta: Mapping[str, Any]) -> PairSample:
    answers = {key: row.answer(key) for key in ("chosen", "rejected")}
    for key, value in answers.items():
        if value is None:
            raise DataError(f"{key} is missing")
    lone = all(_stands_alone(value) for value in answers.values())
    if not _first_key(row, (*PROMPT_KEYS, *(CHAT_KEYS if lone else ()))):
        return PairSample(*_implicit_prompt(*answers.values()), meta)
    written = _prompt(row)
    prompt, chosen = _answer(written, answers["chosen"], "chosen")
    other, rejected = _answer(written, answers["rejected"], "rejected")
    if prompt != other:
        raise DataError("chosen and rejected answer different prompts")
    return PairSample(prompt, chosen, rejected, meta)


def _stands_alone(answer: Any) -> bool:
    """Whether an answer comes without the turns before it."""
    return not is_list(answer) or len(answer) == 1


def _conversation(row: Columns, key: str, meta: Mapping[str, Any]) -> Sample:
    messages = messages_of(row.use(key), key)
    if messages[-1]["role"] == "assistant":
        prompt, response = answerable(messages[:-1], key), answer_in(messages[-1])
        if isinstance(row.get("label"), bool | str) and row["label"] in LABELS:
            return LabelledSample(prompt, response, _label(row.use("label")), meta)
        return TextSample(prompt, response, meta)
    prompt, answer = answerable(messages, key), _first_key(row, ANSWER_KEYS)
    return PromptSample(prompt, meta) if answer is None else _answered(prompt, answer, row, meta)


def _answered(
    prompt: PromptText, key: str, row: Columns, meta: Mapping[str, Any]
) -> TextSample | LabelledSample:
    prompt, response = _answer(prompt, row.answer(key), key)
    if "label" not in row:
        return TextSample(prompt, response, meta)
    return LabelledSample(prompt, response, _label(row.use("label")), meta)


def _implicit_prompt(chosen: Any, rejected: Any) -> tuple[PromptText, Response, Response]:
    """The prompt that two whole dialogues share."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _split_transcripts(text_of(chosen, "chosen"), text_of(rejected, "rejected"))
    one, other = dialogue(chosen, "chosen"), dialogue(rejected, "rejected")
    if one[:-1] != other[:-1]:
        raise DataError("chosen and rejected differ before their last message")
    prompt = answerable(one[:-1], "the part that chosen and rejected share")
    return prompt, answer_in(one[-1]), answer_in(other[-1])


def _split_transcripts(chosen: str, rejected: str) -> tuple[str, Response, Response]:
    """Cut plain-text dialogues after the last answer turn that both share."""
    if chosen == rejected:
        raise DataError("chosen and rejected are the same dialogue, so its prompt is unknown")
    at = chosen[: shared_length(chosen, rejected)].rfind(ANSWER_TURN)
    if at < 0:
        raise DataError(f"no prompt, and chosen and rejected share no {ANSWER_TURN!r}")
    at += len(ANSWER_TURN)
    if any(HUMAN_TURN in answer[at:] for answer in (chosen, rejected)):
        raise DataError("chosen and rejected differ before their last answer")
    return chosen[:at], Response(chosen[at:]), Response(rejected[at:])


# --- the parts of a row ----------------------------------------------------------------------


def _prompt(row: Columns) -> PromptText:
    keys = (*PROMPT_KEYS, *CHAT_KEYS)
    key = _first_key(row, keys) or next((key for key in keys if key in row), None)
    if key is None:
        raise DataError(f"no prompt; the row has {', '.join(row) or 'no keys'}")
    value = row.use(key)
    if is_list(value):
        return answerable(messages_of(value, key), key)
    prompt = text_of(value, key, "a text or a list of messages")
    if not prompt.strip():
        raise DataError(f"{key} is empty")
    extra = row.use("input") if key == "instruction" else None
    return f"{prompt}\n\n{text_of(extra, 'input')}" if extra else prompt


def _answer(prompt: PromptText, value: Any, key: str) -> tuple[PromptText, Response]:
    """An answer and its prompt; an answer written as messages makes a plain prompt a chat."""
    if isinstance(value, str):
        return prompt, Response(text_of(value, key))
    if isinstance(value, Mapping) and "text" in value:
        return prompt, _stored(value, key)
    messages = dialogue(value, key)
    before, response = messages[:-1], answer_in(messages[-1])
    if not isinstance(prompt, str):
        if before and before != prompt:
            raise DataError(f"{key} does not repeat the prompt")
        return prompt, response
    if before and all(message["content"] != prompt for message in before):
        raise DataError(f"{key} does not repeat the prompt")
    return before or ({"role": "user", "content": prompt},), response


def _stored(value: Mapping[str, Any], key: str) -> Response:
    text, ids, plain = text_of(value["text"], f"{key}.text"), value.get("ids"), value.get("plain")
    ended, message = value.get("ended", True), value.get("message")
    if not isinstance(ended, bool):
        raise DataError(f"{key}.ended is {describe(ended)}, not true or false")
    if ids is not None and (
        not is_list(ids) or not ids or not all(type(i) is int and i >= 0 for i in ids)
    ):
        raise DataError(f"{key}.ids is not a list of token ids")
    return Response(
        text,
        None if ids is None else tuple(ids),
        ended,
        None if plain is None else text_of(plain, f"{key}.plain"),
        None if message is None else dialogue(message, f"{key}.message")[-1],
    )


def _scores(value: Any, count: int) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not is_list(value) or len(value) != count:
        raise DataError(f"scores is not a list of {count} numbers, one per response")
    if not all(type(x) in (int, float) and math.isfinite(x) for x in value):
        raise DataError("scores holds something that is not a finite number")
    return tuple(float(x) for x in value)


def _label(value: Any) -> bool:
    if not isinstance(value, (bool, int, float, str)) or value not in LABELS:
        raise DataError(f"label is {value!r}, not true, false, 1, 0, 'desirable' or 'undesirable'")
    return LABELS[value]


def _meta(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(f"meta is {describe(value)}, not an object")
    return dict(value)


def _margin(value: Any) -> dict[str, Any]:
    """By how much the chosen answer is better, where a data set says it in a column of its own."""
    if value is None:
        return {}
    if type(value) not in (int, float) or not math.isfinite(value):
        cause = f"margin is {describe(value)}, not a finite number"
        raise DataError(f"{cause}; rename the column if it means something else")
    return {"margin": float(value)}


def _plain(response: Response) -> str | dict[str, Any]:
    if response == Response(response.text):
        return response.text
    ids = None if response.ids is None else list(response.ids)
    row = {"text": response.text, "ids": ids, "ended": response.ended}
    more = {"plain": response.plain, "message": response.message}
    return row | {name: x for name, x in more.items() if x is not None}


def _prompt_row(prompt: PromptText) -> str | list[dict[str, Any]]:
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]


def _first_key(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    """The first of the columns that is there and not null."""
    return next((key for key in keys if row.get(key) is not None), None)


def n_tokens(response: Response) -> int:
    """Tokens of an answer, the stop token not counted; words when it came without ids."""
    if response.ids is None:
        return len(response.text.split())
    return len(response.ids) - response.ended
