"""Curves as a figure: one column of a paper wide, legible in print and to the colour-blind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.contract.errors import UsageError, suggest
from alignzoo.studies.plots.curves import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette without yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
FORMATS = (".pdf", ".svg", ".png")
FEW = 25  # points of a line that are marked one by one
STYLE: Any = {
    "figure.figsize": (5.2, 3.4),  # inches
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "pdf.fonttype": 42,  # letters stay letters, as journals ask
    "svg.fonttype": "none",
    "svg.hashsalt": "alignzoo",  # equal curves give equal files
}


def check_output(file: Path) -> None:
    """Raise UsageError for a file that would be of no known kind, before anything is read."""
    if file.suffix.lower() not in FORMATS:
        near = suggest(file.suffix.lower(), FORMATS)
        raise UsageError(f"--output {file}: end its name with {', '.join(FORMATS)}{near}")


def draw(curves: Sequence[Curve], x: str, y: str, file: Path) -> None:
    """Write the figure; x and y are the labels of its axes.

    Raises UsageError without matplotlib.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError("plot needs matplotlib; pip install 'alignzoo[plot]'") from error
    matplotlib.use("agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots()
        _lines(axes, curves)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5), useMathText=True)
        if all(at.is_integer() for curve in curves for at in curve.x):
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        if len(curves) > 1 or curves[0].seeds > 1:
            axes.legend()
        file.parent.mkdir(parents=True, exist_ok=True)
        stamp = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
        figure.savefig(file, metadata=stamp.get(file.suffix.lower()))
        pyplot.close(figure)


def _lines(axes: Axes, curves: Sequence[Curve]) -> None:
    looks = zip(cycle(COLOURS), (d for d in cycle(DASHES) for _ in COLOURS), strict=False)
    for curve, name, (colour, dash) in zip(curves, names(curves), looks, strict=False):
        path = _to_and_fro if list(curve.x) != sorted(curve.x) else _onward
        path(axes, curve, name, colour, dash)


def _onward(axes: Axes, curve: Curve, name: str, colour: str, dash: str) -> None:
    """A line, with a band."""
    mark = "o" if len(curve.x) <= FEW else ""
    axes.plot(curve.x, curve.y, label=name, color=colour, linestyle=dash, marker=mark)
    if curve.spread:
        low = [y - s for y, s in zip(curve.y, curve.spread, strict=True)]
        high = [y + s for y, s in zip(curve.y, curve.spread, strict=True)]
        axes.fill_between(curve.x, low, high, color=colour, alpha=0.2, linewidth=0)


def _to_and_fro(axes: Axes, curve: Curve, name: str, colour: str, dash: str) -> None:
    """Points on a faint path, with bars: x, such as a KL, falls again."""
    axes.plot(curve.x, curve.y, color=colour, linestyle=dash, linewidth=0.5, alpha=0.35)
    axes.plot(curve.x, curve.y, label=name, color=colour, linestyle="", marker="o")
    if curve.spread:
        axes.errorbar(curve.x, curve.y, curve.spread, fmt="none", color=colour, linewidth=0.8)


def names(curves: Sequence[Curve]) -> list[str]:
    """What tells curves apart, no more: the stage, the run, or both; and how many seeds."""
    stages, runs = {c.stage for c in curves}, {c.run for c in curves}
    found = []
    for curve in curves:
        parts = [curve.run] * (len(runs) > 1) + [curve.stage] * (len(stages) > 1)
        name = "/".join(parts) or curve.stage
        found.append(f"{name} (mean ± s.e., {curve.seeds} seeds)" if curve.seeds > 1 else name)
    return found
