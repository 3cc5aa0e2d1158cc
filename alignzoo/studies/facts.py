"""What a study found in a world, as values: its page is their view, its JSON their dump."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

State: TypeAlias = Literal["holds", "fails", "open"]
Word: TypeAlias = Literal["reproduced", "in part", "not", "not tested here"]


@dataclass(frozen=True)
class Measure:
    """A column of the table."""

    name: str
    label: str
    unit: str
    better: str | None
    source: str  # the column of the evaluation, or what is derived from which metric
    paper: str  # how the paper's differs


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    label: str
    control: bool
    model: str | None  # RECIPE/MODEL; None: this world has no such row
    paper: Mapping[str, str]


@dataclass(frozen=True)
class Figure:
    """A measure of a row: mean and half of its 95 % interval, over seeds or prompts."""

    row: str
    measure: str
    mean: float | None
    half: float | None
    over: str
    seeds: tuple[float | None, ...]  # one for each of the result's seeds; None: missing there
    prompts: int | None = None  # of one seed


@dataclass(frozen=True)
class Comparison:
    """`factor * left - right + margin` with its 95 % interval, and whether that lies `inside`."""

    left: str | float
    right: str | float
    factor: float
    margin: float
    inside: tuple[float | None, float | None]  # what the claim says of it; None: no limit
    estimate: float | None
    low: float | None
    high: float | None
    n: int
    over: str
    state: State
    seeds: tuple[float | None, ...]
    reason: str = ""  # why it is open without an interval


@dataclass(frozen=True)
class Verdict:
    """A claim and what the figures say of it."""

    says: str
    by: Literal["paper", "us"]
    paper: str
    measure: str
    verdict: Word
    decided: bool  # False: nothing contradicts it, and nothing holds either
    reason: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Line:
    """A row's curve: the mean over seeds at each step, and half of its 95 % interval."""

    row: str
    label: str
    points: tuple[tuple[float, float, float | None], ...]  # x, mean, half
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Picture:
    """A logged metric of some rows."""

    metric: str
    x: str
    label: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class SeedFacts:
    """A seed whose runs are all folded."""

    seed: int
    cpu_seconds: float | None  # of all its runs, where that was measured
    folders: tuple[str, ...]  # relative to where the runs lie


@dataclass(frozen=True)
class Origin:
    """What repeats a result."""

    command: str
    commit: str
    code: str  # version and digest of the core
    versions: Mapping[str, str]
    plugins: tuple[str, ...]
    recipes: Mapping[str, str]  # name -> digest of what decides, without the seed
    changed: tuple[str, ...] = ()  # --set


@dataclass(frozen=True)
class Result:
    """A study in a world."""

    study: str
    title: str
    source: str
    about: str
    world: str
    world_about: str
    tuned: str
    measures: tuple[Measure, ...]
    rows: tuple[Row, ...]
    seeds: tuple[SeedFacts, ...]
    figures: tuple[Figure, ...]
    verdicts: tuple[Verdict, ...]
    pictures: tuple[Picture, ...]
    origin: Origin
    notes: tuple[str, ...] = field(default=())  # what is missing, and what must be known

    def figure(self, row: str, measure: str) -> Figure | None:
        """A cell of the table."""
        those = (f for f in self.figures if (f.row, f.measure) == (row, measure))
        return next(those, None)

    def labelled(self, side: str | float) -> str:
        """A row as readers call it; a number as it is."""
        if isinstance(side, str):
            return next((row.label for row in self.rows if row.name == side), side)
        return f"{side:g}"
