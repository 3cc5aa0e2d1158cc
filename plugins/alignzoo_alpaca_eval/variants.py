"""Variants of length control, by the data they use beside the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignzoo import DataFile, file_digest
from alignzoo_alpaca_eval import files
from alignzoo_alpaca_eval.files import Instructions
from alignzoo_alpaca_eval.length_control import Floats, Gamed, floats

Locate = Callable[[DataFile], Path]
Alignment = Callable[[Sequence[str], Instructions], Sequence[int | None]]


@dataclass(frozen=True)
class LengthData:
    """What is known about the instructions before any judgment."""

    variant: str
    difficulty: Floats | None = None  # of instruction 0, 1, ...
    gamed: Gamed | None = None
    digest: str | None = None  # of the file it came from

    def on(self, numbers: Sequence[int | None]) -> LengthData:
        """The same for the instructions with these numbers; nothing if one is not known."""
        every = self.difficulty
        if every is None or any(n is None or n >= len(every) for n in numbers):
            return MINIMAL
        return replace(self, difficulty=floats([every[n] for n in numbers if n is not None]))


MINIMAL = LengthData("minimal")


def published(locate: Locate) -> LengthData:
    """Difficulty and gamed rows, both from df_gamed.csv as in the official program."""
    path = locate(files.GAMED)
    gamed, difficulty = files.read_gamed(path)
    return LengthData("v1", difficulty, gamed, file_digest(path))


def without_gamed(locate: Locate) -> LengthData:
    """Difficulty alone."""
    path = locate(files.DIFFICULTY)
    return LengthData("noreg", files.read_difficulty(path), digest=file_digest(path))


def without_difficulty(locate: Locate) -> LengthData:
    """Neither; nothing is read, and any prompts will do."""
    return MINIMAL


VARIANTS: Mapping[str, Callable[[Locate], LengthData]] = {
    "v1": published,
    "noreg": without_gamed,
    "minimal": without_difficulty,
}


def by_instruction(texts: Sequence[str], instructions: Instructions) -> Sequence[int | None]:
    """The number of each instruction in the official set; None: it is not in there."""
    places = instructions.places()
    return [places.get(text) for text in texts]


def by_position(texts: Sequence[str], instructions: Instructions) -> Sequence[int | None]:
    """Its place among the answers, right only when none is missing: the official program."""
    return [n if n < len(instructions.rows) else None for n in range(len(texts))]


ALIGNMENTS: Mapping[str, Alignment] = {"instruction": by_instruction, "position": by_position}
