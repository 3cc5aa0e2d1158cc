"""The benchmark's files: questions, answers, and the judge's system prompt and template.

Both forms that upstream has used are read: `question_id, turns` with `choices` (2024) and
`uid, prompt` with `messages` (2025).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from alignzoo import DataError, DataFile

HUB = "lmarena-ai/arena-hard-auto"
INSIDE = "data/arena-hard-v0.1"
BASELINE = "gpt-4-0314"
CODE = "https://raw.githubusercontent.com/lmarena/arena-hard-auto"
COMMIT = "a06dde2607bd14a350ebf91fb52eaa513b1a57cc"


def _from_hub(what: str, name: str) -> DataFile:
    return DataFile(
        what,
        (name, f"arena-hard-v0.1/{name}"),
        f"hf download {HUB} {INSIDE}/{name} --repo-type dataset",
        hub=(HUB, f"{INSIDE}/{name}", "main"),
    )


QUESTIONS = _from_hub("the 500 questions of Arena-Hard v0.1", "question.jsonl")
ANSWERS = _from_hub("the baseline's answers", f"model_answer/{BASELINE}.jsonl")
CONFIG = DataFile(
    "the judge's system prompt and template",
    ("judge_config.yaml", "config/judge_config.yaml"),
    f"curl -LO {CODE}/{COMMIT}/config/judge_config.yaml",
)

FIELDS: Mapping[str, str] = {
    "question_1": "question",
    "answer_1": "first",
    "answer_2": "second",
    "QUESTION": "question",
    "ANSWER_A": "first",
    "ANSWER_B": "second",
}
MOST_TOKENS = 2**53  # a larger count is no count
DECODING: Mapping[str, float] = {"temperature": 0.0, "max_tokens": 4096}  # where it is silent


@dataclass(frozen=True)
class Asked:
    """One question of the benchmark."""

    id: str
    text: str
    cluster: str


@dataclass(frozen=True)
class Recorded:
    """One answer on file."""

    text: str
    n_tokens: int | None  # as the file says


@dataclass(frozen=True)
class JudgeConfig:
    """What the judge is told, from upstream's configuration file."""

    system_prompt: str
    template: str
    temperature: float
    max_tokens: int

    def render(self, question: str, first: str, second: str) -> str:
        """The user message. Braces in questions and answers stay as they are."""
        said = {"question": question, "first": first, "second": second}
        return self.template.format(**{name: said[what] for name, what in FIELDS.items()})


def read_questions(path: Path) -> list[Asked]:
    """The questions in the file's order."""
    return [_question(place, id, row) for place, id, row in rows(path)]


def read_answers(path: Path) -> dict[str, Recorded]:
    """One model's answers by question."""
    return {id: _answer(place, row) for place, id, row in rows(path)}


def read_judge_config(path: Path) -> JudgeConfig:
    """System prompt, template and decoding of upstream's YAML file.

    Raises DataError when it is not such a file.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an impossible date, 5000 "["
        raise DataError(f"{path}: not a YAML file; {CONFIG.get} fetches the right one") from error
    found = content if isinstance(content, dict) else {}
    template = found.get("prompt_template")
    if isinstance(template, list) and len(template) == 1:
        template = template[0]
    system = found.get("system_prompt")
    if not isinstance(system, str) or not isinstance(template, str):
        missing = "prompt_template" if isinstance(system, str) else "system_prompt"
        raise DataError(
            f"{path}: no text under '{missing}'; the file of 2024 has it ({CONFIG.get}), and in "
            f"2025 the system prompt moved into utils/judge_utils.py, from where it can be copied "
            f"into this file"
        )
    _check_template(path, template)
    return JudgeConfig(system, template, *_limits(path, found))


def _limits(path: Path, found: Mapping[str, Any]) -> tuple[float, int]:
    """Temperature and longest reply of the judge."""
    try:
        temperature, longest = (float(found.get(key, x)) for key, x in DECODING.items())
        max_tokens = int(longest)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: temperature and max_tokens must be numbers") from error
    if not 0 <= temperature < math.inf or max_tokens < 1:
        raise DataError(f"{path}: temperature must be 0 or more and max_tokens at least 1")
    return temperature, max_tokens


def _check_template(path: Path, template: str) -> None:
    try:
        fields = [field for field in Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        raise DataError(f"{path}: prompt_template has unpaired braces ({error})") from error
    names = {str(name) for _, name, _, _ in fields}
    if formatted := [name for _, name, spec, conversion in fields if spec or conversion]:
        raise DataError(
            f"{path}: prompt_template formats the field {{{formatted[0]}}}; write it bare"
        )
    if unknown := sorted(names - FIELDS.keys()):
        raise DataError(
            f"{path}: prompt_template has a field {{{unknown[0]}}}; known are "
            + ", ".join(f"{{{name}}}" for name in FIELDS)
        )
    if missing := sorted(set(FIELDS.values()) - {FIELDS[name] for name in names}):
        wanted = next(name for name, what in FIELDS.items() if what == missing[0])
        raise DataError(f"{path}: prompt_template lacks the field {{{wanted}}}")


def rows(path: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(place, question, row) of a JSON Lines file; empty lines do not count.

    Raises DataError with file and line where a line is no JSON object, names no question, or one
    that an earlier line named.
    """
    seen: dict[str, str] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            row = _object(place, line)
            id = _one_of(place, row, ("question_id", "uid"))
            if id in seen:
                raise DataError(f"{place}: question {id} again, as in {seen[id]}; keep one of them")
            seen[id] = place
            yield place, id, row


def _object(place: str, line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: not a JSON object")
    return row


def _question(place: str, id: str, row: Mapping[str, Any]) -> Asked:
    text = row.get("prompt")
    if text is None:
        text = _dig(place, row, ("turns", 0, "content"))
    if not isinstance(text, str):
        raise DataError(f"{place}: the question is not a text")
    return Asked(id, text, str(row.get("cluster", "")))


def _answer(place: str, row: Mapping[str, Any]) -> Recorded:
    if "choices" in row:
        turn = _dig(place, row, ("choices", 0, "turns", 0))
        text = _dig(place, turn, ("content",))
    else:
        turn = {}
        text = _dig(place, row, ("messages", -1, "content"))
        text = text.get("answer") if isinstance(text, dict) else text
    if not isinstance(text, str):
        raise DataError(f"{place}: the answer is not a text")
    about = row.get("conv_metadata") or row.get("metadata")
    said = (part.get("token_len") for part in (turn, about) if isinstance(part, dict))
    return Recorded(text, next((x for x in said if type(x) is int and 0 <= x < MOST_TOKENS), None))


def _dig(place: str, value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError) as error:
            where = ".".join(map(str, path))
            raise DataError(f"{place}: no '{where}', as questions and answers have it") from error
    return value


def _one_of(place: str, row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        if name in row:
            return str(row[name])
    raise DataError(f"{place}: no '{names[0]}'")
