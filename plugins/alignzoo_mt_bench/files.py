"""The benchmark's own files: where they are, and what their rows hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo import DataError, DataFile, locate

HOME = "mt_bench"  # both benchmarks look for their files under this name
FASTCHAT = (
    "https://raw.githubusercontent.com/lm-sys/FastChat/"
    "0e6d3e4beaab66f4d3f93db72541a4abab8af28d/fastchat/llm_judge/data"
)
SIMPO = (
    "https://raw.githubusercontent.com/princeton-nlp/SimPO/"
    "1b3e8f3528a23bce3da514a2dce8ea7490d4bc75/eval/mt-bench"
)
QUESTIONS = DataFile(
    "the 80 questions",
    ("question.jsonl", "mt_bench/question.jsonl"),
    f"curl -LO {FASTCHAT}/mt_bench/question.jsonl",
    package=("fastchat", "llm_judge/data/mt_bench/question.jsonl"),
)
PROMPTS = DataFile(
    "the judge prompts",
    ("judge_prompts.jsonl",),
    f"curl -LO {FASTCHAT}/judge_prompts.jsonl",
    package=("fastchat", "llm_judge/data/judge_prompts.jsonl"),
)
CORRECTED = DataFile(
    "the references of gpt-4-1106-preview",
    (
        "reference_answer/gpt-4-1106-preview.jsonl",
        "reference_answer/gpt-4-1106-preview.simpo.jsonl",
        "gpt-4-1106-preview.jsonl",
    ),
    f"curl -LO {SIMPO}/gpt-4-1106-preview.jsonl",
)
ORIGINAL = DataFile(
    "the references of gpt-4",
    ("reference_answer/gpt-4.jsonl", "mt_bench/reference_answer/gpt-4.jsonl"),
    f"curl -LO {FASTCHAT}/mt_bench/reference_answer/gpt-4.jsonl",
    package=("fastchat", "llm_judge/data/mt_bench/reference_answer/gpt-4.jsonl"),
    optional=True,
)
REFERENCES: Mapping[str, DataFile] = {"gpt-4-1106-preview": CORRECTED, "gpt-4": ORIGINAL}


@dataclass(frozen=True)
class TwoTurns:
    """A question: what the user says first, and after the model's first reply."""

    id: str
    category: str
    turns: tuple[str, str]


@dataclass(frozen=True)
class Template:
    """How a judge is asked."""

    name: str
    system: str
    text: str  # with slots such as {question}


def questions_file(folder: str | None) -> Path:
    """The file of questions; DataError says what to download."""
    return locate(QUESTIONS, HOME, folder)


def prompts_file(folder: str | None) -> Path:
    """The file of judge prompts; DataError says what to download."""
    return locate(PROMPTS, HOME, folder)


def references_file(name: str, folder: str | None) -> Path:
    """The file of reference answers: by the name of who wrote them, or by its path."""
    if name.endswith(".jsonl"):
        if not Path(name).is_file():
            raise DataError(f"{HOME}: with.references: {name} is not a file")
        return Path(name)
    own = DataFile(
        f"the references of {name}",
        (f"reference_answer/{name}.jsonl",),
        "the program that made them",
    )
    return locate(REFERENCES.get(name, own), HOME, folder)


def read_questions(path: Path) -> dict[str, TwoTurns]:
    """Questions by id, in the file's order. Raises DataError for a row that is none."""
    found: dict[str, TwoTurns] = {}
    for place, row in _rows(path):
        number = str(_field(row, "question_id", (int, str), place))
        category = _field(row, "category", str, place)
        if number in found:
            raise DataError(f"{place}: a second question {number}; keep one of them")
        found[number] = TwoTurns(number, category, _two_texts(row, "turns", place))
    return found


def read_templates(path: Path) -> dict[str, Template]:
    """Judge prompts by name. Raises DataError for a row that is none."""
    found = {}
    for place, row in _rows(path):
        name, system, text = (
            _field(row, key, str, place) for key in ("name", "system_prompt", "prompt_template")
        )
        found[name] = Template(name, system, text)
    return found


def read_references(path: Path) -> dict[str, tuple[str, str]]:
    """Reference answers to both turns, by the question's id. Raises DataError for other rows."""
    found = {}
    for place, row in _rows(path):
        number = _field(row, "question_id", (int, str), place)
        choices = _field(row, "choices", list, place)
        first = choices[0] if choices and isinstance(choices[0], dict) else {}
        found[str(number)] = _two_texts(first, "turns", place)
    return found


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", _object(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _object(line: str, place: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON: {error}; download the file again") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: not an object; download the file again")
    return row


def _field(row: Mapping[str, Any], key: str, kind: type | tuple[type, ...], place: str) -> Any:
    if not isinstance(row.get(key), kind):
        raise DataError(f"{place}: has no `{key}` as MT-Bench's files have it")
    return row[key]


def _two_texts(row: Mapping[str, Any], key: str, place: str) -> tuple[str, str]:
    texts = _field(row, key, list, place)
    if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{place}: `{key}` is not two texts, one per turn")
    return texts[0], texts[1]
