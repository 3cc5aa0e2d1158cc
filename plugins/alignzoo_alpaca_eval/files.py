"""The benchmark's own files: where they are, and how they are read."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo import DataError, DataFile
from alignzoo_alpaca_eval.length_control import Floats, Gamed, floats

REPOSITORY = "tatsu-lab/alpaca_eval"
REVISION = "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
PACKAGE = "alpaca_eval"
TEMPLATES = "evaluators_configs"
LARGEST = 1e6  # magnitude of a difficulty or length difference; real ones are below 100
MAY_LACK = "preference"  # empty where the judge gave none
# Sha256 of the 805 instructions in their order, white space collapsed, joined by line feeds.
OFFICIAL = "18511e7a68c0c5d7ca1ae779f0bb11ec4fce7fb81828dce171c2658e332a69b1"


def _from_hub(name: str) -> str:
    return f"hf download {REPOSITORY} {name} --repo-type dataset --revision {REVISION}"


def _in_wheel(what: str, folder: str, name: str, *, optional: bool = False) -> DataFile:
    inner = f"{TEMPLATES}/{folder}/{name}"
    return DataFile(
        what=what,
        names=(name, inner, f"{PACKAGE}/{inner}"),
        get="pip install --no-deps alpaca_eval==0.6.6",
        package=(PACKAGE, inner),
        optional=optional,
    )


BASELINE = DataFile(
    what="the 805 instructions with the baseline's outputs",
    names=(
        "alpaca_eval_gpt4_baseline.json",
        "reference_outputs.jsonl.gz",
        "reference_outputs.jsonl",
    ),
    get=_from_hub("alpaca_eval_gpt4_baseline.json"),
    hub=(REPOSITORY, "alpaca_eval_gpt4_baseline.json", REVISION),
)
GAMED = DataFile(
    what="the judgments of the baseline against verbose and concise versions of itself, with the "
    "instructions' difficulty",
    names=("df_gamed.csv", "df_gamed_equivalent.csv.gz"),
    get=_from_hub("df_gamed.csv"),
    hub=(REPOSITORY, "df_gamed.csv", REVISION),
)
DIFFICULTY = DataFile(
    what="the instructions' difficulty for length_control: noreg",
    names=("instruction_difficulty.csv",),
    get=_from_hub("instruction_difficulty.csv"),
    hub=(REPOSITORY, "instruction_difficulty.csv", REVISION),
    optional=True,
)
CLASSIFIER = _in_wheel("the judge's template", "alpaca_eval_clf_gpt4_turbo", "alpaca_eval_clf.txt")
RANKING = _in_wheel(
    "the judge's template for annotator: ranking",
    "alpaca_eval_gpt4",
    "alpaca_eval.txt",
    optional=True,
)


@dataclass(frozen=True)
class Instruction:
    """One prompt of the set with the output it is compared with."""

    text: str
    output: str
    dataset: str = ""


@dataclass(frozen=True)
class Instructions:
    """The prompt set in the order of its file."""

    rows: tuple[Instruction, ...]

    @property
    def are_official(self) -> bool:
        """Whether these are the 805 instructions that the difficulties were fitted for."""
        text = "\n".join(" ".join(row.text.split()) for row in self.rows)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() == OFFICIAL

    def places(self) -> Mapping[str, int]:
        """The number of each instruction, by its text."""
        return {row.text: number for number, row in enumerate(self.rows)}


def read_instructions(path: Path) -> Instructions:
    """Rows {instruction, output[, dataset]} of a JSON list or JSON Lines, gzipped or not.

    Raises DataError when the file is neither, a row lacks a text, or an instruction repeats.
    """
    rows = tuple(_instruction(path, n, row) for n, row in enumerate(_rows(path), 1))
    found = Instructions(rows)
    if not rows or len(found.places()) < len(rows):
        what = "repeats an instruction" if rows else "holds no instruction"
        raise DataError(f"{path}: {what}; each must stand there once with the baseline's output")
    return found


def _rows(path: Path) -> list[Any]:
    text = read_text(path)
    try:
        if ".jsonl" in path.name:
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); download it again") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: is not a list of rows with instruction and output")
    return rows


def _instruction(path: Path, number: int, row: Any) -> Instruction:
    texts = [row.get(key) for key in ("instruction", "output")] if isinstance(row, dict) else []
    match texts:
        case [str(instruction), str(output)]:
            return Instruction(instruction, output, str(row.get("dataset", "")))
    raise DataError(f"{path}: row {number} is not an object with texts instruction and output")


def read_gamed(path: Path) -> tuple[Gamed, Floats]:
    """Rows {preference, index, std_delta_len, instruction_difficulty}, and the difficulties.

    The second value holds the difficulty of instruction 0, 1, ... as the rows name them.
    """
    rows = list(_table(path, "preference", "index", "std_delta_len", "instruction_difficulty"))
    difficulty = {row["index"]: row["instruction_difficulty"] for row in rows}
    if sorted(difficulty) != list(range(len(difficulty))) or not rows:
        raise DataError(f"{path}: its indices are not 0, 1, 2, ...; download it again")
    return Gamed(
        preference=floats([row["preference"] for row in rows]),
        longer=floats([row["std_delta_len"] for row in rows]),
        difficulty=floats([row["instruction_difficulty"] for row in rows]),
    ), floats([difficulty[index] for index in sorted(difficulty)])


def read_difficulty(path: Path) -> Floats:
    """The difficulty of instruction 0, 1, ... from rows {index, instruction_difficulty}."""
    rows = _table(path, "instruction_difficulty")
    return floats([row["instruction_difficulty"] for row in rows])


def _table(path: Path, *columns: str) -> Iterator[Mapping[str, float]]:
    reader = csv.DictReader(io.StringIO(read_text(path)))
    try:
        for row in reader:
            yield {column: _figure(row[column], column) for column in columns}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path}:{reader.line_num}: has no number under each of {', '.join(columns)}; "
            "download it again"
        ) from error


def _figure(text: str, column: str) -> float:
    if not text and column == MAY_LACK:
        return math.nan
    value = float(text)
    if not abs(value) < LARGEST and not (math.isnan(value) and column == MAY_LACK):
        raise ValueError(f"{value} is not of this table")
    return value


def read_text(path: Path) -> str:
    """The content of a text file, gzipped or not; raises DataError when it cannot be read."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); download it again") from error
