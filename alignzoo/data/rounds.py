"""Many texts read at a time: samples go on side by side, each until it needs the ids of a text.

What becomes of a sample, its errors included, does not depend on the others beside it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeAlias, TypeVar

from alignzoo.contract.errors import DataError
from alignzoo.data.pieces import Text
from alignzoo.data.reader import Reader

T = TypeVar("T")
# Names each text before its ids are asked of the reader, and returns what is made of them.
Steps: TypeAlias = Generator[Text, None, T]
SIDE_BY_SIDE = 256  # samples


def at_once(steps: Steps[T]) -> T:
    """The end of one sample's steps alone."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            made: T = stop.value
            return made


def in_rounds(every: Sequence[Steps[T]], reader: Reader) -> list[T | DataError]:
    """The end of every sample's steps, or why it has none."""
    ends: dict[int, T | DataError] = {}
    for start in range(0, len(every), SIDE_BY_SIDE):
        going = dict(enumerate(every[start : start + SIDE_BY_SIDE], start))
        while going:
            asked: dict[int, Text] = {}
            for number, steps in going.items():
                try:
                    asked[number] = next(steps)
                except StopIteration as stop:
                    ends[number] = stop.value
                except DataError as error:
                    ends[number] = error
            reader.prepare(asked.values())
            going = {number: going[number] for number in asked}
    return [ends[number] for number in range(len(every))]
