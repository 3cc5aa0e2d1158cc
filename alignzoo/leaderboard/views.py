"""From sections and evidence to what the page's template writes down: strings and places."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from alignzoo.contract.evaluation import honest, interval
from alignzoo.leaderboard.charts import NARROW, WIDE, Point, Scatter, scatter
from alignzoo.leaderboard.evidence import Evidence, Exchange, Judgment, Reply, Turn
from alignzoo.leaderboard.fold import Cell, Row, Section
from alignzoo.leaderboard.text import labels, notes
from alignzoo.pages import Scale, decimals, spanning

Found = Mapping[str, Evidence]  # result -> what its evaluation kept
OF_ONE = "category/"  # columns of one category; the table of categories shows them
LENGTHS = ("length", "avg_length", "tokens")  # columns that the scatter plot puts on its x axis
EXCERPT = 96  # characters of a prompt in a list
ARROWS = {1: "higher is better", -1: "lower is better", 0: ""}


@dataclass(frozen=True)
class Head:
    """A column's name and meaning."""

    name: str
    doc: str
    better: str
    leads: bool


@dataclass(frozen=True)
class Bar:
    """An interval drawn in percent of the cell's width; `base` is where the baseline stands."""

    low: float
    mean: float
    high: float
    base: float | None


@dataclass(frozen=True)
class Figure:
    """A cell of the main table; `mean` is empty without a verdict."""

    value: float | None = None
    mean: str = ""
    interval: str = ""
    error: str = ""
    bar: Bar | None = None


@dataclass(frozen=True)
class Line:
    """A row of the main table."""

    number: int
    label: str
    row: Row
    figures: tuple[Figure, ...]
    answered: bool  # whether the page has its answers


@dataclass(frozen=True)
class Said:
    """One model's answers to one prompt. `number` is its line; None: a baseline without one."""

    number: int | None
    label: str
    is_baseline: bool
    value: float | None
    told: str  # the leading column on this prompt, in words
    replies: tuple[Reply, ...]
    judgments: tuple[Judgment, ...]


@dataclass(frozen=True)
class Prompt:
    """One prompt with everybody's answers, the baseline's first."""

    number: int
    name: str
    category: str
    excerpt: str
    turns: tuple[Turn, ...]
    said: tuple[Said, ...]


@dataclass(frozen=True)
class Categories:
    """Means of the leading column by category of prompt."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Figure, ...]], ...]


@dataclass(frozen=True)
class View:
    """A section as the page shows it."""

    key: str
    section: Section
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    judged: bool
    scatters: tuple[Scatter, ...]  # the same plot for wide pages and for narrow ones
    categories: Categories | None
    figures: tuple[tuple[str, ...], ...]  # every figure of every model in long form
    shared: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]  # about single figures
    prompts: tuple[Prompt, ...]
    n_prompts: int


def view(number: int, section: Section, found: Found) -> View:
    """Everything about one section; `found` may lack some of its results."""
    groups = _categories(section, found)
    columns = [n for n in section.shown if not (groups and n.startswith(OF_ONE))]
    kept = next((found[row.result] for row in section.rows if row.result in found), None)
    return View(
        key=f"s{number}",
        section=section,
        heads=tuple(_head(section, name) for name in columns),
        lines=_lines(section, columns, found),
        judged=any(row.counts for row in section.rows),
        scatters=_scatters(section, found),
        categories=groups,
        figures=tuple(_long(section)),
        shared=tuple(_shared(kept.shared if kept else {})),
        notes=tuple(notes(section)),
        prompts=tuple(_prompts(section, found)),
        n_prompts=section.rows[0].prompts,
    )


# --- the table -------------------------------------------------------------------------------


def _head(section: Section, name: str) -> Head:
    better = ARROWS[section.better[name]]
    return Head(name, section.docs[name], better, name == section.lead)


def _lines(section: Section, columns: Sequence[str], found: Found) -> tuple[Line, ...]:
    drawn = {
        name: _column([row.cells.get(name) for row in section.rows], _base(section, name))
        for name in columns
    }
    return tuple(
        Line(
            number=number,
            label=label,
            row=row,
            figures=tuple(drawn[name][number] for name in columns),
            answered=row.result in found,
        )
        for number, (label, row) in enumerate(zip(labels(section), section.rows, strict=True))
    )


def _base(section: Section, name: str) -> float | None:
    cells = (row.cells.get(name) for row in section.rows if row.is_baseline)
    return next((cell.mean for cell in cells if cell), None)


def _column(cells: Sequence[Cell | None], base: float | None) -> list[Figure]:
    """The figures of one column with equal decimals, on one scale."""
    present = [cell for cell in cells if cell]
    if not present:
        return [Figure()] * len(cells)
    digits = decimals([cell.mean for cell in present])
    ends = [x for c in present for x in (c.low, c.mean, c.high) if x is not None]
    scale = spanning(ends, 0, 100)
    return [_figure(cell, digits, scale, base) if cell else Figure() for cell in cells]


def _figure(cell: Cell, digits: int, scale: Scale, base: float | None) -> Figure:
    error = "" if cell.error is None else f"SE {cell.error:.{digits}f}"
    mean = f"{cell.mean:.{digits}f}"
    if cell.interval is None:
        return Figure(cell.mean, mean, "", error)
    low, high = cell.interval
    return Figure(
        value=cell.mean,
        mean=mean,
        interval=f"{low:.{digits}f} to {high:.{digits}f}",
        error=error,
        bar=Bar(scale(low), scale(cell.mean), scale(high), None if base is None else scale(base)),
    )


def _long(section: Section) -> Iterator[tuple[str, ...]]:
    """Model, column, mean, interval, standard error, paired difference to the baseline."""
    for label, row in zip(labels(section), section.rows, strict=True):
        for name, cell in row.cells.items():
            yield (
                label,
                name,
                f"{cell.mean:.4f}",
                "{:.4f} to {:.4f}".format(*cell.interval) if cell.interval else "",
                "" if cell.error is None else f"{cell.error:.4f}",
                _difference(cell),
            )


def _difference(cell: Cell) -> str:
    """The paired difference; without an interval where it is the same on all prompts."""
    if cell.diff is None:
        return ""
    centre, low, high = cell.diff
    between = "" if low is None or high is None else f" ({low:+.4f} to {high:+.4f})"
    return f"{centre:+.4f}{between}"


def _shared(shared: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in shared.items():
        if value not in (None, {}, []):
            plain = isinstance(value, str | int | float)
            yield key, str(value) if plain else json.dumps(value, indent=2, ensure_ascii=False)


# --- length and categories -------------------------------------------------------------------


def _scatters(section: Section, found: Found) -> tuple[Scatter, ...]:
    """The leading column over the answers' length, where two models have both."""
    lead = section.lead
    column = next((name for name in LENGTHS if name in section.docs), None)
    points = [
        Point(label, x, cell.mean, *(cell.interval or (cell.mean, cell.mean)), row.is_baseline)
        for label, row in zip(labels(section), section.rows, strict=True)
        if (cell := row.cells.get(lead or "")) and (x := _length(row, column, found)) is not None
    ]
    if lead is None or len(points) < 2:
        return ()
    meaning = section.docs[column] if column else "mean characters per answer"
    name = ": ".join(filter(None, (column, meaning)))
    return tuple(scatter(points, name, lead, frame) for frame in (WIDE, NARROW))


def _length(row: Row, column: str | None, found: Found) -> float | None:
    if column is not None:
        return row.cells[column].mean if column in row.cells else None
    return found[row.result].characters if row.result in found else None


def _known(section: Section, found: Found) -> list[tuple[int, str, Row, Evidence]]:
    """Line, label, row and evidence of the models whose evaluations are still there."""
    return [
        (number, label, row, found[row.result])
        for number, (label, row) in enumerate(zip(labels(section), section.rows, strict=True))
        if row.result in found
    ]


def _categories(section: Section, found: Found) -> Categories | None:
    """The leading column by category, for benchmarks whose prompts have them."""
    lead = section.lead
    known = [(label, one) for _, label, _, one in _known(section, found)]
    names = tuple(dict.fromkeys(c for _, one in known[:1] for c in one.categories if c))
    if lead is None or len(names) < 2:
        return None
    whole = next((row.cells[lead].whole for row in section.rows if lead in row.cells), None)
    drawn = [_column([_group(one, lead, name, whole) for _, one in known], None) for name in names]
    sizes = tuple(known[0][1].categories.count(name) for name in names)
    rows = zip((label for label, _ in known), zip(*drawn, strict=True), strict=True)
    return Categories(names, sizes, tuple(rows))


def _group(one: Evidence, lead: str, name: str, whole: float | None) -> Cell | None:
    """Mean and interval over a category's prompts; None without a value."""
    pairs = zip(one.values.get(lead, ()), one.categories, strict=False)
    values = [x for x, category in pairs if category == name and x is not None]
    if not values:
        return None
    centre, low, high = interval(values)
    return Cell(centre, *honest(centre, low, high, len(values), whole))


# --- answers ---------------------------------------------------------------------------------


def _prompts(section: Section, found: Found) -> Iterator[Prompt]:
    """The prompts of the first model that kept them, with everybody's answers."""
    known = _known(section, found)
    if not known:
        return
    _, _, _, first = known[0]
    for number, exchange in first.exchanges.items():
        said = [
            _said(line, label, row, one, number, section.lead)
            for line, label, row, one in known
            if number in one.exchanges
        ]
        outside = [] if any(s.is_baseline for s in said) else _outside(section, exchange)
        yield Prompt(
            number=number,
            name=first.names[number],
            category=first.categories[number],
            excerpt=excerpt(exchange.prompt),
            turns=exchange.prompt,
            said=(*outside, *sorted(said, key=lambda s: not s.is_baseline)),
        )


def _said(line: int, label: str, row: Row, one: Evidence, number: int, lead: str | None) -> Said:
    exchange = one.exchanges[number]
    values = one.values.get(lead or "", ())
    value = values[number] if number < len(values) else None
    told = f"{lead} {value:.3g}" if value is not None else "no verdict" if values else ""
    return Said(line, label, row.is_baseline, value, told, exchange.replies, exchange.judgments)


def _outside(section: Section, exchange: Exchange) -> list[Said]:
    """The answer of a baseline that is no row of the table."""
    if exchange.baseline is None:
        return []
    name = f"{section.baseline or 'the benchmark’s own'} (baseline)"
    return [Said(None, name, True, None, "", (exchange.baseline,), ())]


def excerpt(turns: Sequence[Turn]) -> str:
    """The beginning of what the user said last."""
    text = " ".join(next((t.text for t in reversed(turns) if t.role == "user"), "").split())
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1].rstrip() + "…"
