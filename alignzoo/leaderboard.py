"""A pure fold over the results of runs. What cannot be compared never shares a table.

A section holds the results that agree in benchmark, options, prompts, decoding, baseline answers
and judging code; only the model differs between its rows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignzoo.errors import DataError, UsageError

LEADING = 3  # columns of a benchmark that stand before everything else
CELL = 15  # characters of a column on a terminal


@dataclass(frozen=True)
class Cell:
    """Mean over prompts with its 95 % interval; `diff` is the paired difference to the baseline."""

    mean: float
    low: float
    high: float
    diff: tuple[float, float, float] | None = None  # mean, low, high


@dataclass(frozen=True)
class Row:
    """One model's result."""

    run: str
    model: str
    result: str  # hash of everything that made the numbers
    prompts: int
    samples: int
    is_baseline: bool
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Section:
    """Results that may be compared, best first."""

    id: str
    benchmark: str
    options: Mapping[str, Any]
    baseline: str | None
    docs: Mapping[str, str]  # column -> meaning
    better: Mapping[str, int]  # column -> +1 larger is better, -1 smaller, 0 neither
    rows: tuple[Row, ...]

    @property
    def shown(self) -> tuple[str, ...]:
        """The columns of the tables: those that are explained or have a direction.

        A benchmark's leading columns come first, then the distances to other models.
        """
        told = [name for name in self.docs if self.docs[name] or self.better[name]]
        distances = [name for name in told if name.startswith("kl(")]
        rest = [name for name in told if name not in distances]
        return (*rest[:LEADING], *distances, *rest[LEADING:])


def read_leaderboard(folders: Iterable[Path]) -> list[Section]:
    """The sections of some runs' results.

    Raises UsageError for a folder without results and DataError for a damaged file.
    """
    return fold([row for folder in folders for row in _read_rows(folder)])


def fold(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Section]:
    """Group (run, row of scores.jsonl) by section; an equal result of a model is kept once."""
    grouped: dict[str, dict[tuple[str, str], tuple[str, Mapping[str, Any]]]] = {}
    for run, row in rows:
        grouped.setdefault(row["section"], {}).setdefault((row["model"], row["result"]), (run, row))
    return [_section(list(group.values())) for group in grouped.values()]


def _read_rows(folder: Path) -> list[tuple[str, Mapping[str, Any]]]:
    file = folder / "scores.jsonl"
    if not file.exists():
        raise UsageError(f"{folder}: no scores.jsonl; name the folder of a run that has evaluated")
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        fold([("", row) for row in rows])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: damaged ({error}); run the recipe again to rewrite it") from error
    return [(folder.resolve().name, row) for row in rows]


def _section(group: Sequence[tuple[str, Mapping[str, Any]]]) -> Section:
    first = group[0][1]
    columns = {name: cell for _, row in group for name, cell in row["columns"].items()}
    return Section(
        id=first["section"],
        benchmark=first["benchmark"],
        options=first["options"],
        baseline=first["baseline"],
        docs={name: cell["doc"] for name, cell in columns.items()},
        better={name: cell["better"] for name, cell in columns.items()},
        rows=tuple(sorted((_row(run, row) for run, row in group), key=_rank(columns))),
    )


def _rank(columns: Mapping[str, Mapping[str, Any]]) -> Any:
    """Best first by the first column in which larger is better; else in the order given."""
    leading = next((name for name, cell in columns.items() if cell["better"] == 1), "")

    def rank(row: Row) -> float:
        return -row.cells[leading].mean if leading in row.cells else 0.0

    return rank


def _row(run: str, row: Mapping[str, Any]) -> Row:
    return Row(
        run=run,
        model=row["model"],
        result=row["result"],
        prompts=row["prompts"],
        samples=row["samples"],
        is_baseline=row["is_baseline"],
        cells={name: _cell(cell) for name, cell in row["columns"].items()},
    )


def _cell(cell: Mapping[str, Any]) -> Cell:
    diff = (cell["diff_mean"], cell["diff_low"], cell["diff_high"]) if "diff_mean" in cell else None
    return Cell(cell["mean"], cell["low"], cell["high"], diff)


def as_json(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Everything, as JSON-able values."""
    return [asdict(section) for section in sections]


def render_markdown(sections: Sequence[Section]) -> str:
    """Markdown tables: mean [low, high], the 95 % interval over prompts."""
    return "\n".join(_markdown(section) for section in sections)


def _markdown(section: Section) -> str:
    names = ("model", *section.shown)
    lines = [
        f"## {_title(section)}\n",
        _caption(section) + "\n",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
        *(
            "| " + " | ".join([label, *(_interval(row, n) for n in section.shown)]) + " |"
            for label, row in _labelled(section)
        ),
        "",
        *(f"* {name}: {section.docs[name]}" for name in section.shown if section.docs[name]),
        "",
    ]
    return "\n".join(lines)


def render_text(sections: Sequence[Section], width: int = 100) -> str:
    """Tables for a terminal of that many columns; ± is half the 95 % interval over prompts."""
    from rich.console import Console
    from rich.table import Table

    out = io.StringIO()
    console = Console(file=out, width=width)
    for section in sections:
        labelled = _labelled(section)
        room = max(1, (width - 4 - max(len(label) for label, _ in labelled)) // CELL)
        shown, left_out = section.shown[:room], section.shown[room:]
        more = f"\nmore in leaderboard.md: {', '.join(left_out)}" if left_out else ""
        table = Table(title=_title(section), caption=_caption(section) + more)
        table.add_column("model", no_wrap=True)
        for name in shown:
            table.add_column(name, justify="right", no_wrap=True)
        for label, row in labelled:
            table.add_row(label, *(_plus_minus(row, name) for name in shown))
        console.print(table)
    return out.getvalue()


def _labelled(section: Section) -> list[tuple[str, Row]]:
    """Rows with their names; the run is named when there are several."""
    several = len({row.run for row in section.rows}) > 1
    return [
        (
            (f"{row.run}/" if several else "")
            + row.model
            + (" (baseline)" if row.is_baseline else ""),
            row,
        )
        for row in section.rows
    ]


def _title(section: Section) -> str:
    options = ", ".join(f"{key}: {value}" for key, value in section.options.items())
    return section.benchmark + (f" ({options})" if options else "")


def _caption(section: Section) -> str:
    first = section.rows[0]
    versus = f", against {section.baseline}" if section.baseline else ""
    return (
        f"{first.prompts} prompts x {first.samples} samples{versus}; 95 % intervals over prompts; "
        f"section {section.id[:8]}"
    )


def _interval(row: Row, name: str) -> str:
    cell = row.cells.get(name)
    return f"{cell.mean:.3f} [{cell.low:.3f}, {cell.high:.3f}]" if cell else "-"


def _plus_minus(row: Row, name: str) -> str:
    cell = row.cells.get(name)
    return f"{cell.mean:.3f} ±{(cell.high - cell.low) / 2:.3f}" if cell else "-"
