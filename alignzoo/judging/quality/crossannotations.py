"""Files of pairs that several people judged, in the two forms in which they are published.

* alpaca_eval: one row per label: `instruction`, `output_1`, `output_2`, `preference`, perhaps
  `input`, `generator` (who wrote output_2) and `datasplit`. Rows of equal texts are one pair.
  AlpacaFarm's file names no generators; they come from a second file of the same form.
* PandaLM: one row per pair: `instruction`, `input`, `response1`, `response2`, `annotator1` ..,
  and `cmp_key`, which stands for the generator; 0 is a tie.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import DataError
from alignzoo.data.samples import read_rows
from alignzoo.judging.quality.figures import TIE, HumanPair

LEAST_LABELS = 100  # a generator named by a second file needs more labels to be correlated
CORRELATED = "eval"  # the split that counts then
_PERSON = re.compile(r"annotator\d+")


@dataclass(frozen=True)
class _Row:
    """A pair without labels, the labels a row brings (None: left out), and the pair's split."""

    pair: HumanPair
    labels: tuple[float | None, ...]
    split: str


def read_pairs(
    path: Path, labels: int | None = None, generators: Path | None = None
) -> tuple[HumanPair, ...]:
    """Every pair with at least `labels` labels, with the first so many of them.

    `labels` is by default the number that most pairs have. `generators` is the file that names
    generators when this one does not: then only pairs of the eval split and generators with more
    than 100 labels are correlated, as in alpaca_eval. Raises DataError with place and cause.
    """
    groups = _grouped(path)
    if not groups:
        raise DataError(f"{path}: has no rows")
    wanted = labels or _usual(groups)
    kept = [row for row in groups if _complete(row.labels[:wanted], wanted)]
    if not kept:
        raise DataError(f"{path}: no pair has {wanted} labels; ask for fewer with --labels")
    judged = [
        replace(row, pair=replace(row.pair, preferences=_known(row.labels[:wanted])))
        for row in kept
    ]
    if generators is None:
        return tuple(row.pair for row in judged)
    return _named(judged, generators)


def _grouped(path: Path) -> list[_Row]:
    """One row per pair, with all the labels and generators that its rows bring, in file order."""
    groups: dict[str, list[_Row]] = defaultdict(list)
    for row in _rows(path):
        groups[row.pair.key].append(row)
    return [_merged(rows) for rows in groups.values()]


def _merged(rows: Sequence[_Row]) -> _Row:
    names = tuple(dict.fromkeys(name for row in rows for name in row.pair.generators))
    labels = tuple(label for row in rows for label in row.labels)
    return _Row(replace(rows[0].pair, generators=names), labels, rows[0].split)


def _usual(groups: Iterable[_Row]) -> int:
    return Counter(len(row.labels) for row in groups).most_common(1)[0][0]


def _complete(chosen: Sequence[float | None], wanted: int) -> bool:
    return len(chosen) == wanted and None not in chosen


def _known(labels: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(label for label in labels if label is not None)


def _named(judged: Sequence[_Row], path: Path) -> tuple[HumanPair, ...]:
    """The pairs with the generators of a second file. Equal outputs may come from several."""
    names: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for row in _rows(path):
        names[row.pair.key] += row.pair.generators
    pairs = [
        replace(row.pair, generators=names[row.pair.key] if row.split == CORRELATED else ())
        for row in judged
    ]
    labels = Counter(g for pair in pairs for g in pair.generators for _ in pair.preferences)
    return tuple(
        replace(pair, generators=tuple(g for g in pair.generators if labels[g] > LEAST_LABELS))
        for pair in pairs
    )


# --- rows --------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[_Row]:
    for number, (place, row) in enumerate(read_rows(path), 1):
        if isinstance(row, DataError):
            raise DataError(f"{place}: {row}")
        try:
            yield _one_label(row) if "output_1" in row else _all_labels(row, f"row {number}")
        except DataError as error:
            raise DataError(f"{place}: {error}") from None


def _one_label(row: Mapping[str, Any]) -> _Row:
    """A row of alpaca_eval's form. The second file of AlpacaFarm need not have a preference."""
    instruction, one, two = _instruction(row), _text(row, "output_1"), _text(row, "output_2")
    generators = (_text(row, "generator"),) if row.get("generator") is not None else ()
    label = _label(row.get("preference"), "preference")
    pair = HumanPair(json.dumps([instruction, one, two]), instruction, one, two, (), generators)
    return _Row(pair, (label,), str(row.get("datasplit", CORRELATED)))


def _all_labels(row: Mapping[str, Any], key: str) -> _Row:
    """A row of PandaLM's form: equal texts in two rows are two pairs."""
    people = sorted((key for key in row if _PERSON.fullmatch(key)), key=lambda k: (len(k), k))
    if not people:
        raise DataError(
            "neither alpaca_eval's form (instruction, output_1, output_2, preference) nor "
            "PandaLM's (instruction, response1, response2, annotator1, ...)"
        )
    generators = (_text(row, "cmp_key"),) if row.get("cmp_key") is not None else ()
    pair = HumanPair(
        key,
        _instruction(row),
        _text(row, "response1"),
        _text(row, "response2"),
        (),
        generators,
    )
    return _Row(pair, tuple(_label(row[person], person) for person in people), CORRELATED)


def _instruction(row: Mapping[str, Any]) -> str:
    """The instruction and, if it has one, its input, as both programs show them to a judge."""
    given = _text(row, "input") if row.get("input") else ""
    return "\n\n".join(filter(None, (_text(row, "instruction"), given)))


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f"{key} is {json.dumps(value)[:40]}, not a text")
    return value


def _label(value: Any, key: str) -> float | None:
    """A label in [1, 2]; 0 is a tie, null a person who gave none."""
    if value is None:
        return None
    number = float(value) if isinstance(value, int | float) else -1.0
    if number == 0:
        return TIE
    if not 1 <= number <= 2:
        raise DataError(f"{key} is {json.dumps(value)[:40]}, not 1, 2, or a share between; 0: tie")
    return number
