"""Sections as one table for other programs: a line per section, model and column."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from alignzoo.leaderboard.fold import Row, Section

NAMES = ("section", "benchmark", "run", "model", "result", "column")
FIGURES = ("mean", "low", "high", "error", "prompts", "judged", "parsed", "failed")


def render_csv(sections: Sequence[Section]) -> str:
    """Long form, full precision; a figure that is not known is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*NAMES, *FIGURES])
    for section in sections:
        for row in section.rows:
            writer.writerows(_lines(section, row))
    return out.getvalue()


def _lines(section: Section, row: Row) -> Iterator[tuple[object, ...]]:
    asked = row.counts
    counts = (asked.judged, asked.parsed, asked.failed) if asked else (None, None, None)
    for column in section.docs:
        cell = row.cells.get(column)
        figures = (cell.mean, cell.low, cell.high, cell.error) if cell else (None,) * 4
        names = (section.id, section.benchmark, row.run, row.model, row.result, column)
        yield (*names, *figures, row.prompts, *counts)
