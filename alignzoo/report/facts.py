"""Everything that a report shows, as values: the page is their view, the JSON twin their dump."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Point = tuple[float, float]
Interval = tuple[float, float]


@dataclass(frozen=True)
class StageFacts:
    """A stage as a run left it."""

    name: str
    kind: str  # train, generate, label, or the name of a plug-in's stage
    what: str  # the method, the judge
    reads: tuple[str, ...]  # the stages whose results it reads
    status: str  # done, reused, running, failed, interrupted, not begun
    seconds: float | None  # of this run; None: reused, or not known
    made_in: float | None  # seconds of all logged steps, whoever made them
    steps: int | None  # optimiser steps that are logged
    shares: Mapping[str, float]  # phase -> its share of the time of a train stage that ended


@dataclass(frozen=True)
class RunFacts:
    """A run: how far it came, and what it takes to repeat it."""

    name: str
    folder: str
    recipe_name: str
    status: str
    error: str
    started: str
    ended: str
    seed: int | None
    stages: tuple[StageFacts, ...]
    versions: Mapping[str, str]
    plugins: tuple[str, ...]
    recipe: str  # with every default
    commands: tuple[str, ...]


@dataclass(frozen=True)
class MetricFacts:
    """What a metric is, and where it is healthy."""

    name: str
    doc: str
    unit: str
    low: float | None
    high: float | None
    declared: bool  # by the method; else it is the engine's, or nobody's


@dataclass(frozen=True)
class Crossing:
    """A step at which the mean over ten steps left the healthy range."""

    step: float
    value: float


@dataclass(frozen=True)
class CurveFacts:
    """A metric of one run over its steps. Thinned: of every column the least and the largest."""

    run: str
    points: tuple[Point, ...]
    steps: int  # that were logged
    last: float
    crossings: tuple[Crossing, ...]


@dataclass(frozen=True)
class MetricCurves:
    """A metric of a stage in all runs that have it."""

    stage: str
    metric: MetricFacts
    curves: tuple[CurveFacts, ...]


@dataclass(frozen=True)
class Trail:
    """Reward and KL of one run's stage while it learnt: means of neighbouring steps, in order."""

    run: str
    stage: str
    kl: str
    reward: str
    points: tuple[Point, ...]  # (KL, reward)


@dataclass(frozen=True)
class Outcome:
    """A model in a table of results, with what a win rate must be read beside."""

    model: str
    value: float | None
    interval: Interval | None
    difference: tuple[float, float | None, float | None] | None  # paired, to the baseline
    length: float | None
    truncated: float | None  # share of answers that were cut at the limit
    kl: Mapping[str, float]
    is_baseline: bool


@dataclass(frozen=True)
class Comparison:
    """The best model against another one, paired by prompt."""

    role: str  # next best, best of another method, baseline
    model: str
    difference: float
    interval: Interval | None
    prompts: int


@dataclass(frozen=True)
class Scored:
    """One answer with what it was worth."""

    model: str
    value: float
    prompt: str
    answer: str


@dataclass(frozen=True)
class Disagreement:
    """Verdicts on one answer that lie far apart."""

    model: str
    prompt: str
    answer: str
    values: tuple[tuple[str, float], ...]  # who said it, how -> the value
    apart: float


@dataclass(frozen=True)
class Result:
    """A section of the leaderboard, read."""

    section: str
    runs: tuple[str, ...]  # whose models stand in it
    benchmark: str
    lead: str | None
    lead_doc: str
    length_doc: str
    judge: str | None
    baseline: str | None
    prompts: int
    outcomes: tuple[Outcome, ...]  # best first
    comparisons: tuple[Comparison, ...]
    measure: str  # of single answers
    worst: tuple[Scored, ...]
    luckiest: tuple[Scored, ...]
    disagreements: tuple[Disagreement, ...]


@dataclass(frozen=True)
class OverSeed:
    """The leading column of a model over seeds."""

    benchmark: str
    column: str
    model: str
    mean: float
    error: float | None  # standard error over seeds
    values: tuple[float, ...]


@dataclass(frozen=True)
class Said:
    """What the policy answered at one step; each part with whether it differs from before."""

    step: int
    tokens: int
    ended: bool
    parts: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Exchange:
    """One prompt at several steps."""

    asked: str
    said: tuple[Said, ...]


@dataclass(frozen=True)
class Samples:
    """The same prompts over time, in one stage of a run."""

    run: str
    stage: str
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True)
class TokenValue:
    """A token of a response with the value that a method gives it."""

    parts: tuple[tuple[str, bool], ...]  # text, and whether it is a sign for something else
    value: float  # NaN where the signal is not defined


@dataclass(frozen=True)
class ReadResponse:
    """A response with a value for each of its tokens."""

    number: int
    place: str  # where it lies, "facts.jsonl:3"
    label: str  # which of several responses to one prompt it is
    prompt: str
    tokens: tuple[TokenValue, ...]


@dataclass(frozen=True)
class StageLens:
    """Responses read by the method of a train stage, as `alignzoo lens RUN/STAGE` opens."""

    run: str
    stage: str
    signal: str
    unit: str
    positions: str  # aligned, official
    limit: float  # 99 % of the absolute values that were read lie within
    notes: tuple[str, ...]  # what was not read, and why
    responses: tuple[ReadResponse, ...]


@dataclass(frozen=True)
class Alarm:
    """Something that a rail, a promise or the run itself reported."""

    run: str
    stage: str
    step: int | None
    text: str


@dataclass(frozen=True)
class Report:
    """A whole report."""

    runs: tuple[RunFacts, ...]
    results: tuple[Result, ...]
    over_seeds: tuple[OverSeed, ...]
    metrics: tuple[MetricCurves, ...]
    trails: tuple[Trail, ...]
    samples: tuple[Samples, ...]
    alarms: tuple[Alarm, ...]
    missing: tuple[str, ...]  # what cannot be shown, and why
    lens: tuple[StageLens, ...] = ()
    lens_rows: int = 0  # rows of every stage that were to be read; 0: nobody asked
