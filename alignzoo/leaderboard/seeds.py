"""One recipe over several seeds: the mean of each number, and its spread between seeds.

The interval of one run knows nothing of training noise; the standard error over seeds does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignzoo.contract.evaluation import mean, standard_error
from alignzoo.leaderboard import Section


@dataclass(frozen=True)
class OverSeeds:
    """A benchmark's table over seeds: model -> column -> one value per seed, best model first."""

    benchmark: str
    baseline: str | None
    columns: tuple[str, ...]
    values: Mapping[str, Mapping[str, tuple[float, ...]]]


def over_seeds(runs: Sequence[Sequence[Section]]) -> list[OverSeeds]:
    """Fold the sections of equal recipes with different seeds, block by block.

    Only models that every seed has are compared.
    """
    return [_fold(blocks) for blocks in zip(*runs, strict=True)]


def _fold(blocks: Sequence[Section]) -> OverSeeds:
    first = blocks[0]
    tables = [{row.model: row.cells for row in block.rows} for block in blocks]
    models = [m for m in tables[0] if all(m in table for table in tables)]
    values = {
        model: {
            column: tuple(table[model][column].mean for table in tables)
            for column in first.shown
            if all(column in table[model] for table in tables)
        }
        for model in models
    }
    lead = next((c for c in first.shown if first.better[c] == 1), None)
    if lead is not None:
        models.sort(key=lambda model: -mean(values[model][lead]))
    ordered = {model: values[model] for model in models}
    return OverSeeds(first.benchmark, first.baseline, first.shown, ordered)


def rows_of(table: OverSeeds) -> list[tuple[str, ...]]:
    """Cells "mean ± standard error over seeds", a row per model."""
    return [
        (model, *(_cell(columns.get(name)) for name in table.columns))
        for model, columns in table.values.items()
    ]


def _cell(values: Sequence[float] | None) -> str:
    """Seeds that agree, or a single one, know nothing of the spread: the mean stands alone."""
    if values is None:
        return ""
    spread = "" if min(values) == max(values) else f" ±{standard_error(values):.3f}"
    return f"{mean(values):.3f}{spread}"


def markdown(tables: Sequence[OverSeeds], seeds: Sequence[int]) -> str:
    """The tables as a page."""
    parts = [f"Mean ± standard error over seeds {', '.join(map(str, seeds))}.\n"]
    for table in tables:
        against = f", against {table.baseline}" if table.baseline else ""
        head = ("model", *table.columns)
        parts.append(f"## {table.benchmark}{against}\n")
        parts.append(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
        parts += [f"| {' | '.join(row)} |" for row in rows_of(table)]
    return "\n".join(parts) + "\n"
