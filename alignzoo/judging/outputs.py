"""Answers that somebody else's program wrote, read as they are and paired with prompts.

Read are JSON Lines files and JSON lists, gzipped or not, with one answer per row:

* rows of data sets: a prompt under `prompt`, `instruction`, `question` or `messages`, the answer
  under `output`, `response`, `answer`, `completion`, or as the last message;
* alpaca_eval's `model_outputs.json`: `instruction, output, generator`;
* Arena-Hard's answers: `question_id, model_id, choices: [{turns: [{content, token_len}]}]`, and
  those of its later revision: `uid, model, messages` with `{answer}` as the last content;
* MT-Bench's answers: `question_id, model_id, choices: [{turns: [text, text]}]`;
* what a run of our own left: `prompt, responses`, with the replies to earlier turns in `turns`.

Texts such as "ERROR" or "$ERROR$", which those programs write when a model could not be reached,
cannot be told from answers and are judged like them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import DataError
from alignzoo.contract.evaluation import Answer
from alignzoo.contract.types import (
    GroupSample,
    LabelledSample,
    PairSample,
    PromptSample,
    PromptText,
    Response,
    TextSample,
)
from alignzoo.data.messages import describe
from alignzoo.data.rows import n_tokens, sample_from_row
from alignzoo.data.samples import read_rows

ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
ID_KEYS = ("question_id", "uid", "id")
GENERATOR_KEYS = ("generator", "model_id", "model")
KEPT = ("dataset", "category", "conv_metadata", "metadata")  # keys that go into `Output.meta`
IGNORED = ("label", "scores")  # judgments of others, in forms of their own
SHOWN = 60  # characters of a prompt in an error
MOST_TOKENS = 2**53  # a larger count is no count: means could not hold it


@dataclass(frozen=True)
class Output:
    """One model's answer to one prompt."""

    place: str  # "outputs.jsonl:17"
    responses: tuple[Response, ...]  # turn by turn
    prompt: PromptText | None = None
    id: str | None = None  # of the prompt, in its benchmark
    n_tokens: int | None = None  # of the last reply, as the file says
    generator: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def turns(self) -> tuple[str, ...]:
        """The text of every reply, turn by turn."""
        return tuple(response.text for response in self.responses)


def looks_like_outputs(path: Path) -> bool:
    """Whether a name means a file of answers: a .json or .jsonl, gzipped or not, no folder."""
    return path.name.endswith(ENDINGS) and not path.is_dir()


def read_outputs(path: Path) -> tuple[Output, ...]:
    """Every answer of a file, in its order.

    Raises DataError with the line when a row is no answer, holds several answers, or answers a
    prompt that an earlier row answers too.
    """
    outputs = tuple(_output(place, row) for place, row in read_rows(path))
    if not outputs:
        raise DataError(f"{path}: has no answers")
    first: dict[tuple[str | None, str | None], Output] = {}
    for output in outputs:
        one = first.setdefault((_key(output.prompt), output.id), output)
        if one is not output:
            raise DataError(_repeated(output, one))
    return outputs


def match(
    outputs: Iterable[Output], prompts: Sequence[PromptSample], place: str, keys: str = ""
) -> list[Answer]:
    """One answer per prompt, in the order of the prompts; `place` names the file, and the keys of
    the block that names it begin with `keys`.

    A row and a prompt belong together when their texts are equal, or, for a row without a prompt,
    when its id is `prompt.meta["id"]`. A prompt of one user message equals its text, and a row may
    have a system message that the prompt has not. Rows for other prompts are left out.
    `Answer.n_tokens` is what the file says, else the tokens of our own runs, else words.

    Raises DataError when a prompt has no answer, or several.
    """
    found = _paired(outputs, prompts)
    missing = [prompt for prompt, output in zip(prompts, found, strict=True) if output is None]
    if missing:
        raise DataError(
            f"{place}: answers {len(prompts) - len(missing)} of the {len(prompts)} prompts; "
            f"first missing: {_shown(missing[0])}; with `partial: true` (or --set "
            f"{keys}partial=true) they are left out, and the result stands in a table of its own; "
            "or give the benchmark the file's own prompts"
        )
    pairs = zip(prompts, found, strict=True)
    return [_answer(prompt, output) for prompt, output in pairs if output is not None]


def answered(outputs: Iterable[Output], prompts: Sequence[PromptSample]) -> list[int]:
    """The numbers of the prompts that the outputs answer."""
    return [n for n, output in enumerate(_paired(outputs, prompts)) if output is not None]


def _paired(outputs: Iterable[Output], prompts: Sequence[PromptSample]) -> list[Output | None]:
    shelf = _shelf(outputs)
    return [_find(prompt, shelf) for prompt in prompts]


# --- reading -------------------------------------------------------------------------------


def _output(place: str, row: Mapping[str, Any] | DataError) -> Output:
    try:
        if isinstance(row, DataError):
            raise row
        if "choices" in row:
            return _from_choices(place, row)
        return _from_row(place, _unwrapped(row))
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _from_row(place: str, row: Mapping[str, Any]) -> Output:
    sample = sample_from_row({key: x for key, x in row.items() if key not in IGNORED})
    match sample:
        case TextSample() | LabelledSample():
            responses: tuple[Response, ...] = (sample.response,)
        case GroupSample(responses=(only,)):
            responses = (*_earlier(row.get("turns")), only)
        case GroupSample():
            raise DataError(f"{len(sample.responses)} answers; keep the one that is to be judged")
        case PairSample():
            raise DataError("chosen and rejected, which are two answers; keep one as `output`")
        case _:
            raise DataError(f"a prompt without an answer; the row has {', '.join(row)}")
    meta = {**sample.meta, **_kept(row)}
    return Output(
        place=place,
        responses=responses,
        prompt=sample.prompt,
        id=_first(row, ID_KEYS) or _first(meta, ID_KEYS),
        n_tokens=_counted(row, meta),
        generator=_first(row, GENERATOR_KEYS),
        meta=meta,
    )


def _from_choices(place: str, row: Mapping[str, Any]) -> Output:
    choices = row["choices"]
    if not isinstance(choices, list) or len(choices) != 1:
        what = f"{len(choices)} entries" if isinstance(choices, list) else describe(choices)
        raise DataError(f"choices is {what}, not one answer; keep the one that is to be judged")
    turns = _part(choices[0], "turns")
    if turns is None:
        raise DataError("choices[0].turns is missing; give a list of replies")
    if not isinstance(turns, list) or not turns:
        raise DataError(f"choices[0].turns is {describe(turns)}, not a list of replies")
    own = _first(row, ID_KEYS)
    if own is None:
        raise DataError("choices without a question_id")
    return Output(
        place=place,
        responses=tuple(_reply(turn, f"choices[0].turns[{i}]") for i, turn in enumerate(turns)),
        id=own,
        n_tokens=_count(_part(turns[-1], "token_len")),
        generator=_first(row, GENERATOR_KEYS),
        meta=_kept(row),
    )


def _unwrapped(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with the last message's `{answer: text}` replaced by the text."""
    messages = row.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = _part(last, "content")
    if (
        not isinstance(messages, list)
        or not isinstance(last, dict)
        or "answer" not in (content if isinstance(content, dict) else {})
    ):
        return row
    return {**row, "messages": [*messages[:-1], {**last, "content": content["answer"]}]}


def _earlier(turns: Any) -> tuple[Response, ...]:
    """The replies before the last one, which a run keeps per response."""
    if turns is None:
        return ()
    if not isinstance(turns, list) or len(turns) != 1 or not isinstance(turns[0], list):
        raise DataError("turns is not a list with one list of earlier replies")
    return tuple(_reply(turn, f"turns[0][{i}]") for i, turn in enumerate(turns[0]))


def _reply(turn: Any, key: str) -> Response:
    text = turn if isinstance(turn, str) else _part(turn, "content")
    if not isinstance(text, str):
        raise DataError(f"{key} is {describe(turn)}, not a reply")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{key} holds half a character (a lone surrogate)")
    return Response(text)


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in KEPT if key in row}


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((str(row[key]) for key in keys if isinstance(row.get(key), (str, int))), None)


def _part(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _counted(row: Mapping[str, Any], meta: Mapping[str, Any]) -> int | None:
    said = (row.get("n_tokens"), _part(row.get("metadata"), "token_len"), meta.get("token_len"))
    return next((x for x in map(_count, said) if x is not None), None)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < MOST_TOKENS else None


# --- pairing -------------------------------------------------------------------------------

Shelf = Mapping[tuple[str | None, str | None], Sequence[Output]]  # (prompt, id), one may be None


def _shelf(outputs: Iterable[Output]) -> Shelf:
    shelf: dict[tuple[str | None, str | None], list[Output]] = {}
    for output in outputs:
        texts = dict.fromkeys([_key(output.prompt), _key(_without_system(output.prompt))])
        keys = [(text, own) for text in texts for own in (output.id, None)]
        for key in dict.fromkeys(keys):
            if key != (None, None):
                shelf.setdefault(key, []).append(output)
    return shelf


def _find(prompt: PromptSample, shelf: Shelf) -> Output | None:
    text, own = _key(prompt.prompt), _first(prompt.meta, ID_KEYS)
    keys = [(text, own), (text, None), (None, own)]
    found = next((shelf[key] for key in keys if key in shelf), ())
    if len(found) > 1:
        raise DataError(_repeated(found[1], found[0]))
    return found[0] if found else None


def _answer(prompt: PromptSample, output: Output) -> Answer:
    *earlier, last = output.responses
    counted = n_tokens(last) if output.n_tokens is None else output.n_tokens
    return Answer(prompt, last, counted, tuple(earlier))


def _key(prompt: PromptText | None) -> str | None:
    """What two spellings of a prompt share."""
    if prompt is None or isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return str(prompt[0]["content"])
    return json.dumps([[m["role"], m["content"]] for m in prompt], ensure_ascii=False)


def _without_system(prompt: PromptText | None) -> PromptText | None:
    if prompt is None or isinstance(prompt, str):
        return prompt
    return tuple(message for message in prompt if message["role"] != "system") or prompt


def _repeated(one: Output, other: Output) -> str:
    return f"{one.place}: answers the same prompt as {other.place}; keep one of them"


def _shown(prompt: PromptSample) -> str:
    own, text = _first(prompt.meta, ID_KEYS), _key(prompt.prompt) or ""
    return f"{_cut(own)} ({_cut(text)!r})" if own else repr(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
