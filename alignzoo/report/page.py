"""A report as a page: numbers become words and drawings here, and nowhere else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from alignzoo.engine.train.phases import PHASES, REST
from alignzoo.lens.coloured import COLOURS, STEPS
from alignzoo.pages import MINUS, Band, Chart, Series, Source, chart, render
from alignzoo.report.facts import (
    CurveFacts,
    MetricCurves,
    Outcome,
    OverSeed,
    Report,
    Result,
    RunFacts,
    StageFacts,
    Trail,
)
from alignzoo.report.lines import drawn_lens

HERE = Path(__file__).parent
SOURCE = Source(HERE, styles=("page.css",), scripts=("page.js",))
LIVE = Source(HERE, scripts=("watch.js",), reads="connect-src 'self'")
ROW = 56  # pixels of a stage in the graph
STEP = 13  # pixels that an edge goes out for every stage it passes
LENS_ROWS = 4  # that the page proposes to read
WIDEST = 8  # stages that an edge goes out for, however many it passes


@dataclass(frozen=True)
class Edge:
    """A line from a stage to one that reads its result, as SVG path data."""

    path: str
    reads: str
    reader: str


@dataclass(frozen=True)
class Graph:
    """The stages of a run, one below the other."""

    run: RunFacts
    width: int
    height: int
    edges: tuple[Edge, ...]
    rows: tuple[tuple[StageFacts, str, str, float], ...]  # stage, cost, its reads, its place
    phases: tuple[str, ...]  # that took time in some stage


@dataclass(frozen=True)
class Drawn:
    """A metric and its chart."""

    curves: MetricCurves
    title: str
    chart: Chart | None
    healthy: str
    last: tuple[tuple[str, str], ...]  # run -> last value
    crossed: tuple[str, ...]


def render_report(report: Report, *, live: str = "", twin: str = "") -> str:
    """The report as one HTML file. `live` is the version that a watching page compares; `twin` is
    the JSON twin's name.
    """
    colours = {run.name: number for number, run in enumerate(report.runs)}
    drawn = [_drawn(curves, colours) for curves in report.metrics]
    values = {
        "report": report,
        "verdicts": [verdict(result, several=len(report.runs) > 1) for result in report.results],
        "seeds": over_seeds(report.over_seeds),
        "graphs": [_graph(run) for run in report.runs],
        "stages": [(s, list(d)) for s, d in groupby(drawn, key=lambda one: one.curves.stage)],
        "trails": _trail_charts(report.trails, colours),
        "ends": [c for result in report.results if (c := _end_chart(result))],
        "lenses": [(one, *drawn_lens(one)) for one in report.lens],
        "colours": range(2 * STEPS + 1),
        "lens_command": _lens_command(report.runs),
        "number": number,
        "signed": signed,
        "several": len(report.runs) > 1,
        "live": live,
        "twin": twin,
        "share": share,
    }
    sources = [SOURCE, COLOURS, LIVE] if live else [SOURCE, COLOURS]
    return render("page.html.j2", sources, values)


# --- words -----------------------------------------------------------------------------------


def number(x: float | None) -> str:
    """Four digits that count."""
    return "–" if x is None else f"{x:.4g}".replace("-", MINUS)


def signed(x: float | None) -> str:
    """The same with its sign."""
    return "–" if x is None else f"{x:+.4g}".replace("-", MINUS)


def share(x: float | None) -> str:
    """A share in percent."""
    return "–" if x is None else f"{x:.1%}".replace("%", " %")


def over_seeds(means: Sequence[OverSeed]) -> list[str]:
    """The sentence about all seeds together: the best of each benchmark beside the next."""
    lines = []
    for (benchmark, column), some in groupby(means, key=lambda one: (one.benchmark, one.column)):
        best, *others = list(some)
        told = f"Over {len(best.values)} seeds {best.model} has the best mean on {benchmark}: "
        told += f"{column} {_with_error(best)}"
        told += f"; next {others[0].model}, {_with_error(others[0])}" if others else ""
        lines.append(f"{told} (± standard error over seeds).")
    return lines


def _with_error(one: OverSeed) -> str:
    return number(one.mean) + ("" if one.error is None else f" ± {one.error:.2g}")


def verdict(result: Result, *, several: bool = False) -> list[str]:
    """The sentences that a page opens with: what is best, by how much, beside which control.

    With `several` runs on the page the first says whose models they are.
    """
    place = f"{result.benchmark} ({', '.join(result.runs)})" if several else result.benchmark
    best = next((one for one in result.outcomes if one.value is not None), None)
    if best is None or result.lead is None:
        return [f"On {place} no column ranks the models."]
    figure = f"{result.lead} {number(best.value)}"
    if best.interval:
        figure += f", 95 % interval {number(best.interval[0])} to {number(best.interval[1])}"
    figure += f", over {result.prompts} prompts."
    if not result.comparisons:
        return [f"{best.model} alone was measured on {place}: {figure}"]
    first = result.comparisons[0]
    clear = first.difference > 0 and (first.interval is None or first.interval[0] > 0)
    lead = "is best" if clear else "leads, but not clearly,"
    others = [_compared(c.role, c.model, c.difference, c.interval) for c in result.comparisons]
    return [f"{best.model} {lead} on {place}: {figure}", *others]


def _compared(
    role: str, model: str, difference: float, interval: tuple[float, float] | None
) -> str:
    """How far another model is behind the best."""
    name = model.removesuffix(" (baseline)") if role == "baseline" else model
    words = f"{role[0].upper()}{role[1:]}: {name}, {number(difference)} behind"
    if interval is None:
        return f"{words} (no interval: not paired by prompt)."
    low, high = interval
    told = f"{words} (95 % interval, paired by prompt, {number(low)} to {number(high)})."
    return told if low > 0 else f"{told} That is no clear difference."


def _lens_command(runs: Sequence[RunFacts]) -> str:
    """What adds the section that takes models."""
    return f"alignzoo report {shlex.join(run.folder for run in runs)} --lens {LENS_ROWS}"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _cost(stage: StageFacts) -> str:
    """What a stage cost this run."""
    made = "" if stage.made_in is None else f"its steps took {_time(stage.made_in)}"
    if stage.seconds is not None:
        return _time(stage.seconds)
    if stage.status in ("reused", "done earlier"):
        return "nothing" + (f", {made} when it was made" if made else "")
    return made or "not known"


# --- drawings --------------------------------------------------------------------------------


def _graph(run: RunFacts) -> Graph:
    """Stages from above to below, edges bowed to the left: an arc for every result that is read."""
    place = {stage.name: n for n, stage in enumerate(run.stages)}
    passed = [
        (place[name], n)
        for n, stage in enumerate(run.stages)
        for name in stage.reads
        if name in place
    ]
    most = min(WIDEST, max((b - a for a, b in passed), default=1))
    width = 22 + STEP * most
    edges = []
    for a, b in passed:
        out = STEP * min(WIDEST, b - a)
        x, top, bottom = width - 10, ROW * a + ROW / 2, ROW * b + ROW / 2
        path = f"M{x} {top}C{x - 1.3 * out:g} {top} {x - 1.3 * out:g} {bottom} {x} {bottom}"
        edges.append(Edge(path, run.stages[a].name, run.stages[b].name))
    rows = tuple(
        (stage, _cost(stage), ", ".join(stage.reads), ROW * n + ROW / 2)
        for n, stage in enumerate(run.stages)
    )
    known = {phase for stage in run.stages for phase in stage.shares}
    phases = tuple(phase for phase in (*PHASES, REST) if phase in known)
    return Graph(run, width, ROW * len(run.stages), tuple(edges), rows, phases)


def _drawn(curves: MetricCurves, colours: Mapping[str, int]) -> Drawn:
    fact = curves.metric
    series = [
        Series(c.run, c.points, colours[c.run], _on_curve(c.points, [x.step for x in c.crossings]))
        for c in curves.curves
    ]
    band = None if fact.low is None and fact.high is None else Band(fact.low, fact.high)
    title = f"{fact.name} [{fact.unit}]" if fact.unit else fact.name
    crossed = tuple(_crossed(c) for c in curves.curves if c.crossings)
    return Drawn(
        curves,
        title,
        chart(title, "step", fact.unit, series, band),
        _healthy(fact.low, fact.high),
        tuple((c.run, number(c.last)) for c in curves.curves),
        crossed,
    )


def _crossed(curve: CurveFacts) -> str:
    first, n = curve.crossings[0], len(curve.crossings)
    often = "once, at" if n == 1 else f"{n} times, first at"
    return (
        f"{curve.run}: left it {often} step {number(first.step)} "
        f"(mean of ten steps {number(first.value)})"
    )


def _on_curve(
    points: Sequence[tuple[float, float]], steps: Sequence[float]
) -> list[tuple[float, float]]:
    """The drawn points that are nearest to some steps."""
    return [min(points, key=lambda p: abs(p[0] - step)) for step in steps]


def _healthy(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"healthy: {number(low)} to {number(high)}"
    if low is not None:
        return f"healthy: at least {number(low)}"
    return "" if high is None else f"healthy: at most {number(high)}"


def _trail_charts(trails: Sequence[Trail], colours: Mapping[str, int]) -> list[Chart]:
    """Reward over KL while a stage learnt; a dot ends each trail."""
    found = []
    for (stage, kl, reward), some in groupby(trails, key=lambda t: (t.stage, t.kl, t.reward)):
        series = [
            Series(t.run, t.points, colours[t.run], dots=t.points[-1:]) for t in some if t.points
        ]
        drawn = chart(f"{stage}: {reward} over {kl}", f"{kl} [nats]", reward, series)
        found += [drawn] if drawn else []
    return found


def _end_chart(result: Result) -> tuple[Chart, list[tuple[Outcome, float]]] | None:
    """The leading column over the distance to another model, a point per model."""
    names = dict.fromkeys(name for one in result.outcomes for name in one.kl)
    for name in names:
        points = [
            Series(one.model, ((one.kl[name], one.value),), n)
            for n, one in enumerate(result.outcomes)
            if name in one.kl and one.value is not None
        ]
        drawn = chart(
            f"{result.lead} over {name}, {result.benchmark}", f"{name} [nats]", "", points
        )
        if drawn and len(points) > 1:
            return drawn, [(one, one.kl[name]) for one in result.outcomes if name in one.kl]
    return None
