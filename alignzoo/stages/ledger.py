"""What the judges of a stage said of its answers, call by call, on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

from alignzoo.judging.purse import Used
from alignzoo.store.parts import keep_part, read_parts

Price: TypeAlias = Callable[[str, Used], float | None]  # of the replies to a question


@dataclass(frozen=True)
class Entry:
    """What came of one call."""

    key: str  # of the answers and what was asked about them
    values: list[list[float | None]]  # of each group's answers
    judged: int  # questions
    parsed: int  # of them: with a verdict
    bill: Mapping[str, Used]  # question -> what its replies took, of those nobody paid before
    number: int = 0  # of the stage's calls: when it was made first
    strangers: list[str] = field(default_factory=list)  # judges for whom another model replied

    @property
    def is_whole(self) -> bool:
        """Whether every question has a verdict."""
        return self.parsed == self.judged


@dataclass(frozen=True)
class Total:
    """What has come together."""

    judged: int = 0
    parsed: int = 0
    cost: float | None = 0.0  # None: a price is not known


class Ledger:
    """The calls of a stage by number. One that comes again is found and asks nobody, so that a
    stage that goes on from a checkpoint has the same values and totals as one that never stopped.
    `price` is that of now, also for what was paid before.
    """

    def __init__(self, file: Path, price: Price) -> None:
        self.file, self.price = file, price
        self.entries: dict[str, Entry] = {}
        found = read_parts(file)
        for number in sorted(found):
            self._take(Entry(**found[number]))
        self.lines = max(found, default=-1) + 1

    @property
    def place(self) -> str:
        """Whose calls these are: a block of the stage."""
        return self.file.stem

    def _take(self, entry: Entry) -> None:
        self.entries[entry.key] = entry

    def add(self, entry: Entry) -> None:
        """Keep a call; one with the same key takes the place of the earlier."""
        keep_part(self.file, self.lines, asdict(entry))
        self.lines += 1
        self._take(entry)

    @property
    def bill(self) -> dict[str, Used]:
        """Every question that was paid for."""
        return {q: used for entry in self.entries.values() for q, used in entry.bill.items()}

    @property
    def paid(self) -> float:
        """The price of everything, as far as it is known."""
        return sum(self.price(q, used) or 0.0 for q, used in self.bill.items())

    def until(self, number: int) -> Total:
        """What the calls up to a number, and it, came to, however often one of them comes again."""
        return self._total(entry for entry in self.entries.values() if entry.number <= number)

    @property
    def total(self) -> Total:
        """What all calls came to."""
        return self._total(self.entries.values())

    def _total(self, entries: Iterable[Entry]) -> Total:
        calls = list(entries)
        prices = [self.price(q, used) for entry in calls for q, used in entry.bill.items()]
        known = [price for price in prices if price is not None]
        return Total(
            sum(entry.judged for entry in calls),
            sum(entry.parsed for entry in calls),
            sum(known) if len(known) == len(prices) else None,
        )
