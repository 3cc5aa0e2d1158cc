"""AlpacaEval 2 against the official program's numbers and the published leaderboard.

The official solver stops at a tolerance of 1e-4, so its coefficients are compared with fits at
that tolerance, and its results with exact fits at the looser tolerances expected.json states.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alignzoo_alpaca_eval.files import Instructions, read_difficulty, read_gamed, read_instructions
from alignzoo_alpaca_eval.length_control import (
    GRID,
    OFFICIAL_TOLERANCE,
    Comparison,
    LengthControl,
    best_C,
    floats,
    held_out_score,
    length_control,
    training_rows,
)
from alignzoo_alpaca_eval.metrics import WinRate, win_rate
from alignzoo_alpaca_eval.order import candidate_first
from alignzoo_alpaca_eval.parse import from_logprobs
from alignzoo_alpaca_eval.variants import by_instruction, by_position

FOLDER = "alpaca_eval"
EXACT = 1e-6
SAME_FIT = 1e-6  # same data, C, solver and tolerance
BY_C = 0.005  # percentage points: exact fit against the stored exact fit at the same C
OFFICIAL_LC = {"v1": 0.02, "noreg": 0.02, "minimal": 0.07}  # exact fit against tolerance 1e-4
PUBLISHED_LC = 0.02  # at the published C
WEIGHTS = 0.005  # coefficients of an exact fit against published ones
SCORE_NOISE = 1e-5  # held-out log-loss by which the official choice of C may miss the best
NAMES = {
    "win_rate": "win_rate",
    "standard_error": "standard_error",
    "discrete_win_rate": "discrete_win_rate",
    "n_wins": "n_wins",
    "n_wins_base": "n_losses",
    "n_draws": "n_draws",
    "n_total": "n_total",
}

Found = Iterator[tuple[str, ...]]


@dataclass(frozen=True)
class Recorded:
    """The published judgments of one model."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    instructions: Instructions
    folder: Path

    @cached_property
    def preferences(self) -> list[float | None]:
        """For the candidate, 0 to 1; an old 0 is a draw."""
        stored = [row["preference"] for row in self.rows]
        return [None if x is None else (x or 1.5) - 1 for x in stored]

    @property
    def rates(self) -> WinRate:
        return win_rate(self.preferences)

    @property
    def length(self) -> float:
        return sum(len(row["output"]) for row in self.rows) / len(self.rows)

    def comparison(self, variant: str, align: Callable[..., Any] = by_position) -> Comparison:
        """What a variant of length control sees, by default aligned as officially."""
        theirs = {row.text: row.output for row in self.instructions.rows}
        longer = [len(theirs[row["instruction"]]) - len(row["output"]) for row in self.rows]
        gamed, difficulty = read_gamed(_existing(self.folder, "df_gamed"))
        numbers = align([row["instruction"] for row in self.rows], self.instructions)
        known = floats([difficulty[n] for n in numbers])
        return Comparison(
            floats(self.preferences),
            floats(longer),
            None if variant == "minimal" else known,
            gamed if variant == "v1" else None,
        )


def check(folder: Path, expected: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """Compare every number of the section; the key paths that were found right."""
    own = folder / FOLDER
    _check_difficulties(own)
    instructions = read_instructions(_existing(own, "reference_outputs"))
    assert instructions.are_official, "the 805 instructions are not recognised"
    checked: set[tuple[str, ...]] = set()
    for path in sorted(own.glob("*.annotations.jsonl.gz")):
        name = path.name.removesuffix(".annotations.jsonl.gz")
        if name not in expected:
            continue
        model = Recorded(name, _lines(path), instructions, own)
        _check_order_and_parse(model)
        checked |= {(FOLDER, name, *leaf) for leaf in _check_model(model, expected[name])}
    return checked


def _check_model(model: Recorded, wanted: Mapping[str, Any]) -> Found:
    yield from _check_counts(model, wanted)
    yield from _check_variant(model, "v1", _official_v1(wanted), V1_LEAVES)
    yield from _check_lc_by_c(model, wanted["lc_v1"])
    for variant in ("noreg", "minimal"):
        key = f"length_controlled_{variant}"
        leaves = {leaf: (key, leaf) for leaf in V1_LEAVES}
        yield from _check_variant(model, variant, wanted[key], leaves)
    if "aligned_by_instruction" in wanted:
        yield from _check_alignment(model, wanted["aligned_by_instruction"])
    yield from _check_published(model, wanted)


# --- one row of the leaderboard --------------------------------------------------------------


def _check_counts(model: Recorded, wanted: Mapping[str, Any]) -> Found:
    for key, own in NAMES.items():
        _near(getattr(model.rates, own), wanted[key], EXACT, f"{model.name}.{key}")
        yield (key,)
    _near(int(model.length), wanted["avg_length"], EXACT, f"{model.name}.avg_length")
    yield ("avg_length",)


def _check_order_and_parse(model: Recorded) -> None:
    """The order rule and the reading of log-probabilities give every stored preference."""
    for row in model.rows:
        first = candidate_first(row["instruction"])
        assert row.get("switched", first) == first, f"{model.name}: order of {row['index']}"
        if row["top_logprobs"] is None:
            continue
        p = from_logprobs(row["top_logprobs"])
        if p is None or row["preference"] is None:
            assert p is None and row["preference"] is None, f"{model.name}: row {row['index']}"
            continue
        _near(
            1 + (p if first else 1 - p), row["preference"], EXACT, f"{model.name}: {row['index']}"
        )


# --- length control --------------------------------------------------------------------------

V1_LEAVES: Mapping[str, tuple[str, ...]] = {
    "length_controlled_winrate": ("length_controlled_winrate",),
    "lc_standard_error": ("lc_standard_error",),
    "C": ("lc_v1", "C"),
    "coef": ("lc_v1", "coef"),
}


def _official_v1(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        leaf: wanted[path[0]] if len(path) == 1 else wanted[path[0]][path[1]]
        for leaf, path in V1_LEAVES.items()
    }


def _check_variant(
    model: Recorded, variant: str, wanted: Mapping[str, Any], leaves: Mapping[str, tuple[str, ...]]
) -> Found:
    place, data = f"{model.name}.{variant}", model.comparison(variant)
    same = length_control(data, wanted["C"], OFFICIAL_TOLERANCE)
    exact = length_control(data, wanted["C"])
    _near(same.win_rate, wanted["length_controlled_winrate"], SAME_FIT, f"{place}: LC")
    _near(exact.win_rate, wanted["length_controlled_winrate"], OFFICIAL_LC[variant], f"{place}: LC")
    _near(same.standard_error, wanted["lc_standard_error"], SAME_FIT, f"{place}: SE of LC")
    if wanted["C"] is None:
        assert same.C is None and wanted["coef"] is None, f"{place}: a fit with itself"
    else:
        _near_each(same.coefficients, wanted["coef"], SAME_FIT, f"{place}: coef")
        _check_choice(data, wanted["C"], place)
    yield from leaves.values()


def _check_choice(data: Comparison, official: float, place: str) -> None:
    """The official C is as good as ours but for the noise of its solver."""
    design = training_rows(data)
    best = held_out_score(design, best_C(design))
    lost = best - held_out_score(design, min(GRID, key=lambda C: abs(math.log(C / official))))
    assert 0 <= lost <= SCORE_NOISE, f"{place}: C = {official} scores {lost} below the best"


def _check_lc_by_c(model: Recorded, wanted: Mapping[str, Any]) -> Found:
    data = model.comparison("v1")
    for key, value in wanted.get("lc_by_C", {}).items():
        C = min(GRID, key=lambda C: abs(math.log(C / float(key))))
        _near(length_control(data, C).win_rate, value, BY_C, f"{model.name}: LC at C = {key}")
        yield ("lc_v1", "lc_by_C", key)
    ours = length_control(data)
    table = {float(key): value for key, value in wanted.get("lc_by_C", {}).items()}
    if ours.C is not None:
        value = table[min(table, key=lambda C: abs(math.log(C / ours.C)))]
        _near(ours.win_rate, value, BY_C, f"{model.name}: LC at the C we choose, {ours.C}")


def _check_alignment(model: Recorded, wanted: Mapping[str, Any]) -> Found:
    data = model.comparison("v1", by_instruction)
    same = length_control(data, wanted["C"], OFFICIAL_TOLERANCE)
    _near(same.win_rate, wanted["length_controlled_winrate"], SAME_FIT, f"{model.name}: aligned")
    _near(same.standard_error, wanted["lc_standard_error"], SAME_FIT, f"{model.name}: aligned SE")
    _check_choice(data, wanted["C"], f"{model.name}: aligned")
    for leaf in ("length_controlled_winrate", "lc_standard_error", "C"):
        yield ("aligned_by_instruction", leaf)


# --- the published row -----------------------------------------------------------------------


def _check_published(model: Recorded, wanted: Mapping[str, Any]) -> Found:
    row, place = wanted["published"], f"{model.name}.published"
    _check_csv(model, row)
    for key, own in NAMES.items():
        _near(getattr(model.rates, own), row[key], EXACT, f"{place}.{key}")
        yield ("published", key)
    # The published mean is over all outputs of the model, the recorded rows may lack some.
    tolerance = 0.5 + abs(805 - len(model.rows)) / 2
    _near(int(model.length), row["avg_length"], tolerance, f"{place}.avg_length")
    yield ("published", "avg_length")
    C = row.get("C_inferred")
    fit = length_control(model.comparison("v1"), C or wanted["lc_v1"]["C"])
    _near(fit.win_rate, row["length_controlled_winrate"], PUBLISHED_LC, f"{place}: LC")
    yield ("published", "length_controlled_winrate")
    _near_each(fit.coefficients or (0.0, 0.0, 0.0), row["glm_weights"], WEIGHTS, place)
    yield ("published", "glm_weights")
    if row["lc_standard_error"] is not None:
        _near(fit.standard_error, row["lc_standard_error"], PUBLISHED_LC, f"{place}: SE of LC")
    yield ("published", "lc_standard_error")
    if C is not None:
        _check_inferred(model, row)
        yield ("published", "C_inferred")
    _check_distance(model, wanted)
    yield ("lc_now_minus_published",)


def _check_csv(model: Recorded, row: Mapping[str, Any]) -> None:
    """The section repeats what the tables beside it hold; null is an empty cell."""
    published = _named_rows(model.folder / "leaderboard_rows.csv")[model.name]
    for key in {*NAMES, "avg_length", "length_controlled_winrate", "lc_standard_error"}:
        cell = float(published[key]) if published[key] else None
        assert (cell is None) == (row[key] is None), f"{model.name}.published.{key}"
        if cell is not None:
            _near(cell, row[key], EXACT, f"{model.name}.published.{key} in the table")
    weights = _named_rows(model.folder / "glm_weights_rows.csv")[model.name]
    cells = [float(x) for key, x in weights.items() if key]
    _near_each(cells, row["glm_weights"], EXACT, f"{model.name}.glm_weights in the table")


def _check_inferred(model: Recorded, row: Mapping[str, Any]) -> None:
    """The inferred C is the one of the grid whose win rate is nearest the published."""
    data, published = model.comparison("v1"), row["length_controlled_winrate"]
    best = min(GRID, key=lambda C: abs(length_control(data, C).win_rate - published))
    _near(math.log(best / row["C_inferred"]), 0.0, EXACT, f"{model.name}.published.C_inferred")


def _check_distance(model: Recorded, wanted: Mapping[str, Any]) -> None:
    found: LengthControl = length_control(
        model.comparison("v1"), wanted["lc_v1"]["C"], OFFICIAL_TOLERANCE
    )
    distance = found.win_rate - wanted["published"]["length_controlled_winrate"]
    _near(distance, wanted["lc_now_minus_published"], SAME_FIT, f"{model.name}: now - published")


# --- reading ---------------------------------------------------------------------------------


def _check_difficulties(folder: Path) -> None:
    _, difficulty = read_gamed(_existing(folder, "df_gamed"))
    alone = read_difficulty(_existing(folder, "instruction_difficulty"))
    _near_each(difficulty, alone, 1e-6, "difficulty in the two tables")


def _existing(folder: Path, start: str) -> Path:
    (found,) = sorted(folder.glob(f"{start}*"))
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _named_rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row[""]: row for row in csv.DictReader(file)}


def _near(found: float, wanted: float, tolerance: float, place: str) -> None:
    assert abs(found - wanted) <= tolerance, f"{place}: {found}, not {wanted} (+-{tolerance})"


def _near_each(
    found: Sequence[float], wanted: Sequence[float], tolerance: float, place: str
) -> None:
    assert len(found) == len(wanted), f"{place}: {len(found)} numbers, not {len(wanted)}"
    for one, other in zip(found, wanted, strict=True):
        _near(one, other, tolerance, place)
