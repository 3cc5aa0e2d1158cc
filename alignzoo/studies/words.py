"""A result in words and rounded numbers, for Markdown and the page alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from alignzoo.contract.errors import counted
from alignzoo.pages import decimals
from alignzoo.studies.facts import Comparison, Figure, Measure, Result, Row, Verdict
from alignzoo.studies.verdicts import NOISE, formula, plain, signed

NONE = "–"


@dataclass(frozen=True)
class Column:
    """A measure as a column of the table."""

    measure: Measure
    head: str
    digits: int
    paper: str  # heading of the paper's figures beside it; empty: it prints none


def columns(result: Result) -> list[Column]:
    """The measures, in the study's order."""
    return [_column(result, one) for one in result.measures]


def _column(result: Result, measure: Measure) -> Column:
    own = [f for f in result.figures if f.measure == measure.name]
    values = [f.mean for f in own if f.mean is not None]
    unit = f" [{measure.unit}]" if measure.unit else ""
    printed = any(measure.name in row.paper for row in result.rows)
    paper = f"paper's {measure.label}" if printed else ""
    return Column(measure, f"{measure.label}{unit}", decimals(values), paper)


def number(value: float | None, digits: int) -> str:
    """A value with so many digits."""
    return NONE if value is None else plain(value, digits)


def cell(figure: Figure | None, digits: int) -> str:
    """0.731 ± 0.012."""
    if figure is None or figure.mean is None:
        return NONE
    half = "" if figure.half is None else f" ± {plain(figure.half, digits)}"
    return number(figure.mean, digits) + half


def row_label(row: Row) -> str:
    """A row's name; a control says that it is one."""
    return f"{row.label} (control)" if row.control else row.label


def table(result: Result) -> Iterator[tuple[Row, list[str]]]:
    """Every row, and its cells: ours, and the paper's beside it where that prints any."""
    for row in result.rows:
        cells = []
        for one in columns(result):
            cells.append(cell(result.figure(row.name, one.measure.name), one.digits))
            if one.paper:
                cells.append(row.paper.get(one.measure.name, NONE))
        yield row, cells


def heads(result: Result) -> list[str]:
    """The headings of `table`."""
    return [text for one in columns(result) for text in (one.head, one.paper) if text]


def caption(result: Result) -> str:
    """What the table's ± is."""
    seeds = ", ".join(str(one.seed) for one in result.seeds)
    if len(result.seeds) == 1:
        return (
            f"Seed {seeds}. ± is half the 95 % interval over the seed's prompts (normal); a figure "
            "without one is the same on all of them, or no mean over prompts. "
            f"{NOISE[0].upper()}{NOISE[1:]}."
        )
    return (
        f"Mean over seeds {seeds} ± half the 95 % interval over seeds (Student's t). A figure "
        "without one is the same in every seed, or known in one alone."
    )


def differing(result: Result) -> list[str]:
    """How the paper's columns differ from ours, where they stand beside them."""
    own = (one.measure for one in columns(result) if one.paper)
    return [f"The paper's {one.label}: {one.paper}." for one in own if one.paper]


def verdict_word(verdict: Verdict) -> str:
    """The word; a claim that nothing contradicts either says so."""
    undecided = verdict.verdict == "not" and not verdict.decided
    return "not (undecided)" if undecided else verdict.verdict


def counts(result: Result) -> str:
    """How many claims have which verdict: "2 reproduced, 1 in part, 0 not"."""
    words = [verdict_word(one) for one in result.verdicts]
    usual = ["reproduced", "in part", "not"]
    names = [*usual, *(w for w in dict.fromkeys(words) if w not in usual)]
    return ", ".join(f"{words.count(name)} {name}" for name in names)


def differences(result: Result, verdict: Verdict) -> Iterator[tuple[str, list[str]]]:
    """Every comparison of a claim: what, and estimate, interval, n, state, every seed."""
    for one in verdict.comparisons:
        known = [x for x in (one.estimate, one.low, one.high) if x is not None]
        digits = decimals(known)
        yield (
            formula(one, result.labelled),
            [
                NONE if one.estimate is None else signed(one.estimate, digits),
                interval(one, digits),
                one.state,
                counted(one.n, one.over.removesuffix("s")),
                wanted(one),
                ", ".join(NONE if x is None else signed(x, digits) for x in one.seeds),
            ],
        )


DIFFERENCE_HEADS = ("difference", "estimate", "95 % interval", "state", "n", "claimed", "by seed")


def interval(one: Comparison, digits: int) -> str:
    """Its ends, or why there is none."""
    if one.low is None or one.high is None:
        return f"none: {one.reason}"
    return f"{signed(one.low, digits)} to {signed(one.high, digits)}"


def wanted(one: Comparison) -> str:
    """What the claim says of the difference."""
    low, high = one.inside
    if low is not None and high is not None:
        return f"{signed(low, decimals([low]))} to {signed(high, decimals([high]))}"
    return "above 0" if low is not None else "below 0"


def by_seed(result: Result, column: Column) -> Iterator[tuple[str, list[str]]]:
    """Every row of a measure, seed by seed."""
    for row in result.rows:
        figure = result.figure(row.name, column.measure.name)
        if figure is not None:
            yield row_label(row), [number(x, column.digits) for x in figure.seeds]


def made(result: Result) -> list[tuple[str, str]]:
    """How the result was made: name, text."""
    origin = result.origin
    seconds = [
        f"seed {one.seed}: {NONE if one.cpu_seconds is None else f'{one.cpu_seconds:,.0f}'}"
        for one in result.seeds
    ]
    found = [
        ("command", origin.command),
        ("seeds", ", ".join(str(one.seed) for one in result.seeds)),
        ("changed", ", ".join(origin.changed)),
        ("tuned", result.tuned),
        ("commit", origin.commit),
        ("core", origin.code),
        ("versions", ", ".join(f"{name} {x}" for name, x in origin.versions.items())),
        ("recipes", ", ".join(f"{name} ({digest})" for name, digest in origin.recipes.items())),
        ("CPU seconds", "; ".join(seconds)),
    ]
    return [(name, text) for name, text in found if text]
