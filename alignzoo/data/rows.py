"""Rows of a data file to samples and back: every form that preference data comes in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import (
    GroupSample,
    LabelledSample,
    Message,
    PairSample,
    PromptSample,
    PromptText,
    Response,
    Sample,
    TextSample,
)

PROMPT_KEYS = ("prompt", "instruction", "question")
ANSWER_KEYS = ("response", "completion", "answer", "output")
ANSWER_TURN = "\n\nAssistant:"  # opens an answer in plain-text transcripts
HUMAN_TURN = "\n\nHuman:"
LABELS: Mapping[Any, bool] = {0: False, 1: True, "undesirable": False, "desirable": True}


def sample_from_row(row: Mapping[str, Any]) -> Sample:
    """The sample a row holds; raises DataError with the cause (the reader adds the place).

    Known forms, the first that fits: `prompt, responses[, scores]`; `[prompt,] chosen, rejected`;
    `messages`; `prompt, response[, label]`; `prompt`. A `margin` beside `chosen` goes to `meta`.
    Other keys than these and `meta` are ignored.
    """
    meta = _meta(row.get("meta"))
    if "responses" in row:
        return _group(row, meta)
    if "chosen" in row or "rejected" in row:
        return _pair(row, _margin(row.get("margin")) | meta)
    if "messages" in row:
        return _conversation(row, meta)
    key = _first_key(row, ANSWER_KEYS)
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
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


# --- the forms -----------------------------------------------------------------------------


def _group(row: Mapping[str, Any], meta: Mapping[str, Any]) -> GroupSample:
    values = row["responses"]
    if not _is_list(values) or not values:
        raise DataError(f"responses is {describe(values)}, not a list of answers")
    prompt = _prompt(row)
    answers = [_answer(prompt, value, f"responses[{i}]") for i, value in enumerate(values)]
    if any(its_prompt != answers[0][0] for its_prompt, _ in answers):
        raise DataError("the responses answer different prompts")
    responses = tuple(response for _, response in answers)
    return GroupSample(answers[0][0], responses, _scores(row.get("scores"), len(responses)), meta)


def _pair(row: Mapping[str, Any], meta: Mapping[str, Any]) -> PairSample:
    for key in ("chosen", "rejected"):
        if row.get(key) is None:
            raise DataError(f"{key} is missing")
    if _first_key(row, PROMPT_KEYS) is None:
        prompt, chosen, rejected = _implicit_prompt(row["chosen"], row["rejected"])
        return PairSample(prompt, chosen, rejected, meta)
    written = _prompt(row)
    prompt, chosen = _answer(written, row["chosen"], "chosen")
    other, rejected = _answer(written, row["rejected"], "rejected")
    if prompt != other:
        raise DataError("chosen and rejected answer different prompts")
    return PairSample(prompt, chosen, rejected, meta)


def _conversation(row: Mapping[str, Any], meta: Mapping[str, Any]) -> Sample:
    messages = _messages(row["messages"], "messages")
    if messages[-1]["role"] == "assistant":
        return TextSample(
            _checked(messages[:-1], "messages"), Response(messages[-1]["content"]), meta
        )
    prompt, key = _checked(messages, "messages"), _first_key(row, ANSWER_KEYS)
    return PromptSample(prompt, meta) if key is None else _answered(prompt, key, row, meta)


def _answered(
    prompt: PromptText, key: str, row: Mapping[str, Any], meta: Mapping[str, Any]
) -> TextSample | LabelledSample:
    prompt, response = _answer(prompt, row[key], key)
    if "label" not in row:
        return TextSample(prompt, response, meta)
    return LabelledSample(prompt, response, _label(row["label"]), meta)


def _implicit_prompt(chosen: Any, rejected: Any) -> tuple[PromptText, Response, Response]:
    """The prompt that two whole dialogues share."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _split_transcripts(_text(chosen, "chosen"), _text(rejected, "rejected"))
    one, other = _dialogue(chosen, "chosen"), _dialogue(rejected, "rejected")
    if one[:-1] != other[:-1]:
        raise DataError("chosen and rejected differ before their last message")
    prompt = _checked(one[:-1], "the part that chosen and rejected share")
    return prompt, Response(one[-1]["content"]), Response(other[-1]["content"])


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


def _prompt(row: Mapping[str, Any]) -> PromptText:
    key = _first_key(row, PROMPT_KEYS)
    if key is None:
        raise DataError(f"no prompt; the row has {', '.join(row) or 'no keys'}")
    value = row[key]
    if _is_list(value):
        return _checked(_messages(value, key), key)
    prompt = _text(value, key, "a text or a list of messages")
    if not prompt.strip():
        raise DataError(f"{key} is empty")
    extra = row.get("input") if key == "instruction" else None
    return f"{prompt}\n\n{_text(extra, 'input')}" if extra else prompt


def _answer(prompt: PromptText, value: Any, key: str) -> tuple[PromptText, Response]:
    """An answer and its prompt; an answer written as messages makes a plain prompt a chat."""
    if isinstance(value, str):
        return prompt, Response(_text(value, key))
    if isinstance(value, Mapping) and "text" in value:
        return prompt, _stored(value, key)
    messages = _dialogue(value, key)
    before, response = messages[:-1], Response(messages[-1]["content"])
    if not isinstance(prompt, str):
        if before and before != prompt:
            raise DataError(f"{key} does not repeat the prompt")
        return prompt, response
    if before and all(message["content"] != prompt for message in before):
        raise DataError(f"{key} does not repeat the prompt")
    return before or ({"role": "user", "content": prompt},), response


def _stored(value: Mapping[str, Any], key: str) -> Response:
    text, ids = _text(value["text"], f"{key}.text"), value.get("ids")
    ended = value.get("ended", True)
    if not isinstance(ended, bool):
        raise DataError(f"{key}.ended is {describe(ended)}, not true or false")
    if ids is None:
        return Response(text, None, ended)
    if not _is_list(ids) or not ids or not all(type(i) is int and i >= 0 for i in ids):
        raise DataError(f"{key}.ids is not a list of token ids")
    return Response(text, tuple(ids), ended)


def _dialogue(value: Any, key: str) -> tuple[Message, ...]:
    """Messages that end with the assistant's answer; one message may come without a list."""
    messages = _messages([value] if isinstance(value, Mapping) else value, key)
    if messages[-1]["role"] != "assistant":
        raise DataError(f"{key} ends with a {messages[-1]['role']} message, not the assistant's")
    return messages


def _messages(value: Any, key: str) -> tuple[Message, ...]:
    if not _is_list(value):
        raise DataError(f"{key} is {describe(value)}, not a text or a list of messages")
    if not value:
        raise DataError(f"{key} is an empty list")
    return tuple(_message(message, f"{key}[{i}]") for i, message in enumerate(value))


def _message(value: Any, key: str) -> Message:
    if not isinstance(value, Mapping):
        raise DataError(f"{key} is {describe(value)}, not a message with role and content")
    known = {part: _text(value.get(part), f"{key}.{part}") for part in ("role", "content")}
    others = {name: _text(x, f"{key}.{name}") for name, x in value.items() if isinstance(x, str)}
    return others | known


def _text(value: Any, key: str, wanted: str = "a text") -> str:
    if not isinstance(value, str):
        raise DataError(f"{key} is {describe(value)}, not {wanted}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{key} holds half a character (a lone surrogate)") from error
    return value


def _checked(prompt: tuple[Message, ...], key: str) -> tuple[Message, ...]:
    """The messages, if one can answer them."""
    if not any(message["content"].strip() for message in prompt):
        raise DataError(f"{key}: the prompt is empty")
    if prompt[-1]["role"] == "assistant":
        raise DataError(f"{key}: the prompt ends with an assistant message")
    return prompt


def _scores(value: Any, count: int) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not _is_list(value) or len(value) != count:
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
    if response.ids is None and response.ended:
        return response.text
    ids = None if response.ids is None else list(response.ids)
    return {"text": response.text, "ids": ids, "ended": response.ended}


def _prompt_row(prompt: PromptText) -> str | list[dict[str, str]]:
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]


def _first_key(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in row), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def describe(value: Any) -> str:
    """A value in words, as far as JSON has a word for it: "a list", "missing"."""
    names = {type(None): "missing", str: "a text", bool: "a truth value", dict: "an object"}
    names |= {int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")


def n_tokens(response: Response) -> int:
    """Tokens of an answer, the stop token not counted; words when it came without ids."""
    if response.ids is None:
        return len(response.text.split())
    return len(response.ids) - response.ended
