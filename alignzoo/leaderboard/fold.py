"""From the rows that runs wrote to sections of comparable results, best first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from alignzoo.contract.errors import DataError

T = TypeVar("T")
LEADING = 3  # columns of a benchmark that stand before everything else


@dataclass(frozen=True)
class Cell:
    """One figure with its 95 % interval over prompts.

    `diff` is the paired difference to the baseline: mean, low, high. A figure without an interval
    is the same on all prompts; `alike` is their number.
    """

    mean: float
    low: float | None
    high: float | None
    diff: tuple[float, float | None, float | None] | None = None
    error: float | None = None  # the standard error that the benchmark's authors print
    note: str = ""  # about this figure alone: a fitted constant, a warning
    alike: int | None = None
    whole: float | None = None  # of a share: what it is a share of, 1 or 100

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, where it is known."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Counts:
    """How the questions to the judge fared; failed are those without a verdict."""

    judged: int
    parsed: int
    failed: int


@dataclass(frozen=True)
class Row:
    """One model's result. A column without a single verdict has no cell."""

    run: str
    model: str
    result: str  # hash of everything that made the numbers
    prompts: int
    samples: int
    is_baseline: bool
    cells: Mapping[str, Cell]
    counts: Counts | None = None
    cost: float | None = None  # of judging, in the user's currency; None: not known
    tokens_known: bool = True  # whether every reply that was paid for says its tokens
    agreement: float | None = None  # of a panel of judges, 0 to 1
    identity: str | None = None  # hash of everything the evaluation depended on
    decoding: str | None = None  # where the answers come from: sampled, or a file
    missing: Mapping[str, str] = field(default_factory=dict)  # column without a figure -> why


@dataclass(frozen=True)
class Section:
    """Results that may be compared, best first."""

    id: str
    benchmark: str
    options: Mapping[str, Any]
    baseline: str | None
    docs: Mapping[str, str]  # column -> meaning
    better: Mapping[str, Literal[-1, 0, 1]]  # column -> +1 larger is better, -1 smaller, 0 neither
    rows: tuple[Row, ...]
    judge: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)  # what its results share -> a hash of it
    apart: str = ""  # how it differs from the table of this benchmark that is nearest to it

    @property
    def shown(self) -> tuple[str, ...]:
        """The columns of the tables: those that are explained or have a direction.

        A benchmark's leading columns come first, then the distances to other models.
        """
        told = [name for name in self.docs if self.docs[name] or self.better[name]]
        distances = [name for name in told if name.startswith("kl(")]
        rest = [name for name in told if name not in distances]
        return (*rest[:LEADING], *distances, *rest[LEADING:])

    @property
    def lead(self) -> str | None:
        """The column that ranks: the first in which larger is better."""
        return next((name for name, better in self.better.items() if better == 1), None)


def fold(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Section]:
    """Group (run, row of scores.jsonl) by section; an equal result of a model is kept once."""
    grouped: dict[str, dict[tuple[str, str], tuple[str, Mapping[str, Any]]]] = {}
    for run, row in rows:
        grouped.setdefault(row["section"], {}).setdefault((row["model"], row["result"]), (run, row))
    sections = [_section(list(group.values())) for group in grouped.values()]
    return [replace(section, apart=_apart(section, sections)) for section in sections]


def _apart(section: Section, every: Sequence[Section]) -> str:
    """What keeps a section out of another one of its benchmark, in words; of the nearest one."""
    others = [
        ([part for part, x in section.parts.items() if other.parts.get(part) != x], other.id)
        for other in every
        if other is not section and other.benchmark == section.benchmark and other.parts
    ]
    if not others or not section.parts:
        return ""
    differing, near = min(others, key=lambda one: len(one[0]))
    return f"not in one table with section {near[:8]}: other {', '.join(differing)}"


def as_json(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Everything, as JSON-able values."""
    return [asdict(section) for section in sections]


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn what a damaged file raises into a DataError with one sentence."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError,
            OSError) as error:  # fmt: skip
        raise DataError(f"{file}: damaged ({error}); run the recipe again to rewrite it") from error


def typed(value: T) -> T:
    """A dataclass read from a file, with fields of its types; raises ValueError otherwise."""
    try:
        return TypeAdapter(type(value)).validate_python(asdict(value))  # type: ignore[call-overload]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _section(group: Sequence[tuple[str, Mapping[str, Any]]]) -> Section:
    first = group[0][1]
    columns = {name: cell for _, row in group for name, cell in row["columns"].items()}
    section = Section(
        id=first["section"],
        benchmark=first["benchmark"],
        options=first["options"],
        baseline=first["baseline"],
        docs={name: cell["doc"] for name, cell in columns.items()},
        better={name: cell["better"] for name, cell in columns.items()},
        rows=(),
        judge=_judge([row for _, row in group if row.get("judge")]),
        parts=first.get("parts", {}),
    )
    rows = [_row(run, row) for run, row in group]
    ranked = sorted(rows, key=lambda row: _rank(row, section.lead))
    return Section(**{**vars(section), "rows": tuple(ranked)})


def _judge(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Who judged the rows; a baseline that nobody was asked about does not say it."""
    asked = [row for row in rows if (row.get("counts") or {}).get("judged")]
    return " or ".join(dict.fromkeys(row["judge"] for row in asked or rows)) or None


def _rank(row: Row, lead: str | None) -> float:
    """Best first; rows without a figure last, in the order given."""
    cell = row.cells.get(lead) if lead else None
    return -cell.mean if cell else math.inf


def _row(run: str, row: Mapping[str, Any]) -> Row:
    counts = row.get("counts")
    cells = {name: _cell(cell) for name, cell in row["columns"].items()}
    return Row(
        run=run,
        model=row["model"],
        result=row["result"],
        prompts=row["prompts"],
        samples=row["samples"],
        is_baseline=row["is_baseline"],
        cells={name: cell for name, cell in cells.items() if cell is not None},
        counts=Counts(counts["judged"], counts["parsed"], counts["failed"]) if counts else None,
        cost=row.get("cost"),
        tokens_known=row.get("usage", counts) is not None or counts is None,
        agreement=row.get("agreement"),
        identity=row.get("identity"),
        decoding=row.get("decoding"),
        missing={
            name: row["columns"][name]["note"]
            for name, cell in cells.items()
            if cell is None and row["columns"][name].get("note")
        },
    )


def _cell(cell: Mapping[str, Any]) -> Cell | None:
    """None where not one prompt had a verdict."""
    mean = finite(cell["mean"])
    if mean is None:
        return None
    diff = finite(cell.get("diff_mean"))
    return Cell(
        mean=mean,
        low=finite(cell["low"]),
        high=finite(cell["high"]),
        diff=None if diff is None else (diff, finite(cell["diff_low"]), finite(cell["diff_high"])),
        error=finite(cell.get("error")),
        note=cell.get("note", ""),
        alike=cell.get("alike"),
        whole=cell.get("whole"),
    )


def finite(value: float | None) -> float | None:
    """The number, or None for what is none: null and NaN."""
    return None if value is None or not math.isfinite(value) else float(value)
