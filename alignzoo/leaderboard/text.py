"""Sections as Markdown and as tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import accumulate

from alignzoo.contract.errors import counted
from alignzoo.leaderboard.fold import Cell, Row, Section

GAP = 3  # characters between the columns of a table on a terminal
COUNTS = "judged/parsed/failed"
DIGIT = 0.001  # the last that is shown


def render_markdown(sections: Sequence[Section]) -> str:
    """Markdown tables: mean [low, high], the 95 % interval over prompts."""
    return "\n".join(_markdown(section) for section in sections)


def render_text(
    sections: Sequence[Section], width: int = 100, whole: str = "in leaderboard.md"
) -> str:
    """Tables for a terminal of that many columns; ± is half the 95 % interval over prompts, and one
    that is not symmetric is written out. `whole` says where columns without room can be read.
    """
    from rich.console import Console
    from rich.table import Table

    out = io.StringIO()
    console = Console(file=out, width=width)
    for section in sections:
        names = labels(section)
        columns = _columns(section)
        room = width - 4 - max(map(len, names)) - sum(_width(c) for c in columns if c[0] == COUNTS)
        kept = _fitting(columns, room)
        left_out = [column[0] for column in columns if column not in kept]
        more = f"\nmore {whole}: {', '.join(left_out)}" if left_out else ""
        table = Table(title=title(section), caption=caption(section) + more)
        table.add_column("model", overflow="fold")  # figures must stay whole
        for column in kept:
            table.add_column(column[0], justify="right", no_wrap=True)
        for name, *cells in zip(names, *(column[1:] for column in kept), strict=True):
            table.add_row(name, *cells)
        console.print(table)
        for note in (*notes(section), *_about_judging(section)):
            console.print(note, markup=False, highlight=False)
    return out.getvalue()


def labels(section: Section) -> list[str]:
    """The rows' names; the run is named when there are several."""
    several = len({row.run for row in section.rows}) > 1
    return [
        (f"{row.run}/" if several else "") + row.model + (" (baseline)" if row.is_baseline else "")
        for row in section.rows
    ]


def notes(section: Section) -> list[str]:
    """What is to be said about single figures: "model, column: note", or "model: note"."""
    return [
        f"{label}, {words}"
        for label, row in zip(labels(section), section.rows, strict=True)
        for words in (
            *(f"{name}: {cell.note}" for name, cell in row.cells.items() if cell.note),
            *(f"{name}: {why}" for name, why in row.missing.items()),
        )
    ] + _alike(section)


def _alike(section: Section) -> list[str]:
    """Which figures of which models have no interval, and why: equal words are said once."""
    told: dict[str, list[str]] = {}
    for label, row in zip(labels(section), section.rows, strict=True):
        for words in _without_interval(section, row):
            told.setdefault(words, []).append(label)
    return [f"{', '.join(models)}: {words}" for words, models in told.items()]


def _without_interval(section: Section, row: Row) -> list[str]:
    by_number: dict[int, list[str]] = {}
    for name, cell in row.cells.items():
        if cell.alike is not None and name in section.shown:
            by_number.setdefault(cell.alike, []).append(name)
    return [
        f"no interval for {' and '.join(names)}, {'each ' if len(names) > 1 else ''}{_why(n)}"
        for n, names in by_number.items()
    ]


def _why(n: int) -> str:
    if n == 0:
        return "a figure of all prompts together"
    return f"the same on all {n} prompts" if n > 1 else "measured on one prompt"


def _about_judging(section: Section) -> list[str]:
    """What judging a row cost, and how often a panel agreed: "model: ..."."""
    told = {
        label: [
            *([] if row.agreement is None else [f"the judges agree on {row.agreement:.1%}"]),
            *([f"judging cost {row.cost:.4g}"] if row.cost else []),
            *([] if row.tokens_known else ["what judging cost is unknown"]),
        ]
        for label, row in zip(labels(section), section.rows, strict=True)
    }
    return [f"{label}: {', '.join(words)}" for label, words in told.items() if words]


def title(section: Section) -> str:
    """The benchmark with its options."""
    options = ", ".join(f"{key}: {value}" for key, value in section.options.items())
    return section.benchmark + (f" ({options})" if options else "")


def caption(section: Section) -> str:
    """What all rows share."""
    first = section.rows[0]
    versus = f", against {section.baseline}" if section.baseline else ""
    judged = f", judged by {section.judge}" if section.judge else ""
    samples = f" x {first.samples} samples" if first.samples > 1 else ""
    return (
        f"{counted(first.prompts, 'prompt')}{samples}{versus}{judged}; "
        f"95 % intervals over prompts; section {section.id[:8]}"
        f"{f', {section.apart}' if section.apart else ''}"
    )


def counts(row: Row) -> str:
    """Questions asked / verdicts / replies without one; "-" where nobody was asked."""
    found = row.counts
    return f"{found.judged}/{found.parsed}/{found.failed}" if found else "-"


def _markdown(section: Section) -> str:
    judged = any(row.counts for row in section.rows)
    names = ("model", *section.shown, *([COUNTS] if judged else []))
    lines = [
        f"## {title(section)}\n",
        caption(section) + "\n",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
        *(
            "| " + " | ".join([label, *_markdown_cells(section, row, judged)]) + " |"
            for label, row in zip(labels(section), section.rows, strict=True)
        ),
        "",
        *(f"* {name}: {section.docs[name]}" for name in section.shown if section.docs[name]),
        *(f"* {note}" for note in (*notes(section), *_about_judging(section))),
        "",
    ]
    return "\n".join(lines)


def _markdown_cells(section: Section, row: Row, judged: bool) -> list[str]:
    return [*(_interval(row, n) for n in section.shown), *([counts(row)] if judged else [])]


def _interval(row: Row, name: str) -> str:
    cell = row.cells.get(name)
    if cell is None:
        return "-"
    between = " [{:.3f}, {:.3f}]".format(*cell.interval) if cell.interval else ""
    return f"{cell.mean:.3f}{between}{_error(cell)}"


def _plus_minus(row: Row, name: str) -> str:
    cell = row.cells.get(name)
    if cell is None:
        return "-"
    return f"{cell.mean:.3f}{_around(cell)}{_error(cell)}"


def _around(cell: Cell) -> str:
    """The interval behind the mean; ± only where both halves are the same, digit for digit."""
    if cell.interval is None:
        return ""
    low, high = cell.interval
    if abs((cell.mean - low) - (high - cell.mean)) < DIGIT:
        return f" ±{(high - low) / 2:.3f}"
    return f" [{low:.3f}, {high:.3f}]"


def _error(cell: Cell) -> str:
    return "" if cell.error is None else f" (SE {cell.error:.3f})"


def _columns(section: Section) -> list[tuple[str, ...]]:
    """Head and cells of every column beside the model's."""
    columns = [(n, *(_plus_minus(row, n) for row in section.rows)) for n in section.shown]
    if any(row.counts for row in section.rows):
        columns.append((COUNTS, *(counts(row) for row in section.rows)))
    return columns


def _width(column: Sequence[str]) -> int:
    return max(map(len, column)) + GAP


def _fitting(columns: Sequence[tuple[str, ...]], room: int) -> list[tuple[str, ...]]:
    """The first columns that fit, at least one; the counts always, as the last."""
    figures = [column for column in columns if column[0] != COUNTS]
    reach = accumulate(map(_width, figures))
    n_fit = max(1, sum(end <= room for end in reach))
    return [*figures[:n_fit], *(column for column in columns if column[0] == COUNTS)]
