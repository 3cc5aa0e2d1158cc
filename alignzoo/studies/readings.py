"""One measure of one row in one seed, as a run left it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import DataError, suggest
from alignzoo.contract.evaluation import mean
from alignzoo.recipe.blocks import Recipe
from alignzoo.store.files import digest_of_value
from alignzoo.store.folders import evaluation_folder, model_folder
from alignzoo.studies.places import Place


@dataclass(frozen=True)
class Reading:
    """A figure, and the values by prompt that it is the mean of (none where it is not).

    `kind` says what was measured: values with equal kinds may be compared prompt by prompt.
    `whole` is what a share is a share of: 1, or 100 for percent.
    """

    value: float
    prompts: tuple[float | None, ...] = ()
    kind: str = ""
    note: str = ""
    whole: float | None = None


def read_column(
    run: Path, recipe: Recipe, place: Place, column: str, times: float = 1.0
) -> Reading | str:
    """A column of an evaluation, each value times a number, or why there is none, in words.

    Raises DataError when the file is damaged.
    """
    spec = recipe.evaluate[place.evaluation]
    folder = evaluation_folder(run, place.evaluation + 1, spec) / model_folder(place.model)
    file = folder / "scores.json"
    found = _content(file)
    cells, values = found["row"]["columns"], found["values"]
    if column not in cells or column not in values:
        return f"no column {column}{suggest(column, cells)} (there are: {', '.join(cells)})"
    own = tuple(None if x is None else times * float(x) for x in values[column])
    bad = sum(1 for x in own if x is not None and not math.isfinite(x))
    if bad:
        return f"{column} is NaN or infinite for {bad} of {len(own)} prompts"
    if (stated := cells[column]["mean"]) is None or not math.isfinite(stated):
        return f"{column} has no figure{_why(cells[column])}"
    figure = times * stated
    there = [x for x in own if x is not None]
    plain = bool(there) and math.isclose(mean(there), figure, rel_tol=1e-9, abs_tol=1e-12)
    missing = len(own) - len(there)
    note = f"{column} is missing for {missing} of {len(own)} prompts" if missing else ""
    whole = times * cells[column]["whole"] if cells[column].get("whole") else None
    kind = _kind(found["section"], column)
    return Reading(figure, own if plain else (), kind, note, whole)


def _content(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found["row"]["columns"], dict) or not isinstance(found["values"], dict):
            raise ValueError("row.columns or values is no object")
        if not isinstance(found["section"], dict):
            raise ValueError("section is no object")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{file}: damaged ({error}); run the study again to rewrite it") from error
    return dict(found)


def _why(cell: Mapping[str, Any]) -> str:
    return f": {cell['note']}" if cell.get("note") else ""


def _kind(section: Mapping[str, Any], column: str) -> str:
    """A digest of everything that two models' values of a column must share: prompts, options,
    decoding, baseline; of other models, the one that the column is a distance to.
    """
    shared = {key: x for key, x in section.items() if key != "kl_to"}
    if column.startswith("kl("):
        shared["kl_to"] = section.get("kl_to", {}).get(column[3:-1])
    return digest_of_value(shared)


def differences(
    left: Reading | float, right: Reading | float, factor: float, margin: float
) -> list[float]:
    """`factor * left - right + margin` by prompt; empty where values cannot be paired so.

    A number stands for itself on every prompt. Prompts that one side lacks are left out.
    """
    sides = [side for side in (left, right) if isinstance(side, Reading)]
    if not all(side.prompts for side in sides) or not alike(left, right):
        return []
    n = len(sides[0].prompts)
    pairs = zip(_values(left, n), _values(right, n), strict=True)
    return [factor * a - b + margin for a, b in pairs if a is not None and b is not None]


def difference(
    left: Reading | float, right: Reading | float, factor: float, margin: float
) -> float:
    """The same of the figures: over the prompts that both have, where these can be paired."""
    paired = differences(left, right, factor, margin)
    return mean(paired) if paired else factor * _figure(left) - _figure(right) + margin


def alike(left: Reading | float, right: Reading | float) -> bool:
    """Whether two readings are of the same prompts, decoding and baseline."""
    if not isinstance(left, Reading) or not isinstance(right, Reading):
        return True
    same = not left.prompts or not right.prompts or len(left.prompts) == len(right.prompts)
    return left.kind == right.kind and same


def _values(side: Reading | float, n: int) -> Sequence[float | None]:
    return side.prompts if isinstance(side, Reading) else [side] * n


def _figure(side: Reading | float) -> float:
    return side.value if isinstance(side, Reading) else side
