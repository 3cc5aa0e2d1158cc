"""The leaderboard's columns from preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alignzoo import Column, Estimate, Verdict, bootstrap
from alignzoo_alpaca_eval.length_control import (
    FOLDS,
    Comparison,
    LengthControl,
    length_control,
    length_control_interval,
)
from alignzoo_alpaca_eval.metrics import average, moved_far

NOTES = {
    "v1": "",
    "noreg": "; not the published number: without gamed rows",
    "minimal": "; not the published number: without difficulty, which exists for the official "
    "instructions only, and without gamed rows",
}


def question_id(number: int, place: int) -> str:
    """Instruction and the candidate's place, 0 first."""
    return f"{number}/{place}"


def preference(number: int, places: Sequence[int], verdicts: Mapping[str, Verdict]) -> float | None:
    """Mean of an instruction's verdicts; None unless there is one for every place asked about.

    One order alone would bring in how much the judge likes a position.
    """
    found = [verdicts.get(question_id(number, place)) for place in places]
    known = [verdict.value for verdict in found if verdict is not None]
    return average(known) if len(known) == len(found) else None


def discrete(value: float | None) -> float | None:
    """1 for a win, 0 for a loss, 1/2 for a draw."""
    return None if value is None else (1 + (value > 0.5) - (value < 0.5)) / 2


def rate(values: Sequence[float | None], doc: str, error: float | None = None) -> Column:
    """Mean of values in [0, 1] as percent, with a bootstrap interval over instructions."""
    percent = tuple(None if x is None else 100 * x for x in values)
    if not any(x is not None for x in percent):
        return Column(percent, doc, better=1, whole=100)

    def mean_of(rows: Sequence[int]) -> float:
        drawn = [percent[row] for row in rows]
        return average([x for x in drawn if x is not None])

    figure = mean_of(range(len(percent)))
    low, high = bootstrap(len(percent), mean_of)
    found = Estimate(figure, low, high, error)
    return Column(percent, doc, better=1, estimate=found, whole=100)


def length_controlled(comparison: Comparison, variant: str, raw: float, C: float | None) -> Column:
    """The length-controlled win rate with a bootstrap interval; `raw` is the win rate, percent.

    The official lc_standard_error is not shown: it leaves out the uncertainty of the fit. With
    fewer than five verdicts there is no figure: the penalty of the fit would be all that it says.
    """
    if comparison.n_verdicts < FOLDS and not comparison.is_with_itself:
        doc = f"win rate at equal lengths, {variant}"
        return Column((None,) * len(comparison.longer), doc, 1, note=_too_few(comparison))
    found = length_control(comparison, C)
    low, high = length_control_interval(comparison, found.C)
    return Column(
        found.predictions,
        f"win rate at equal lengths, percent, {variant}{NOTES[variant]}",
        better=1,
        estimate=Estimate(found.win_rate, low, high),
        note=_note(found, raw),
    )


def _too_few(comparison: Comparison) -> str:
    """Why there is no figure; nothing is to be said where nobody gave a verdict."""
    n = comparison.n_verdicts
    return f"no figure: the fit needs {FOLDS} verdicts, there are {n}" if n else ""


def _note(found: LengthControl, raw: float) -> str:
    """The constant that was chosen, and a warning where length changes much."""
    fitted = "" if found.C is None else f"C = {found.C:.4g}"
    far = "far from the win rate, look at the outputs" if moved_far(raw, found.win_rate) else ""
    return "; ".join(filter(None, (fitted, far)))
