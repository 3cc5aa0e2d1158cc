"""A lens as JSON, whole numbers, response by response so that memory holds one at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from alignzoo.lens.gather import Readings
from alignzoo.lens.read import Reading
from alignzoo.lens.tokens import Pieces, bare
from alignzoo.lens.top import Top
from alignzoo.lens.view import Lens

VERSION = 1


def write_json(lens: Lens, file: Path) -> None:
    """Write every number that the page can show, in full precision.

    A response of n tokens has n + 1 positions in `values` and `top`; null: not defined there.
    """
    with file.open("w", encoding="utf-8") as out:
        out.writelines(pieces_of(lens))


def pieces_of(lens: Lens) -> Iterator[str]:
    """The text of the file, a response at a time."""
    head = {
        "version": VERSION,
        "notes": list(lens.notes),
        "methods": [described(method) for method in lens.methods],
    }
    yield json.dumps(head)[:-1] + ', "responses": [\n'
    for number in range(len(lens.rows)):
        end = ",\n" if number + 1 < len(lens.rows) else "\n"
        yield json.dumps(response(lens, number), allow_nan=False) + end
    yield "]}\n"


def described(method: Readings) -> dict[str, Any]:
    """What a method is, and what it says of every token."""
    of = method.method
    known: tuple[Any, ...] = fields(of.algorithm) if is_dataclass(of.algorithm) else ()
    options = {f.name: getattr(of.algorithm, f.name) for f in known}
    return {
        "name": of.label,
        "algorithm": type(of.algorithm).name,
        "options": json.loads(json.dumps(options, default=str)),
        "roles": {role: ref.name for role, ref in of.refs.items()},
        "positions": "official" if method.official else "aligned",
        "signals": [
            {"name": q.name, "unit": q.unit, "from": q.origin, "at": list(q.at)}
            for q in method.quantities
        ],
        "distributions": list(method.distributions),
    }


def response(lens: Lens, number: int) -> dict[str, Any]:
    """One response with all that the methods say of it."""
    row = lens.rows[number]
    return {
        "place": row.place,
        "label": row.label,
        "prompt": row.prompt_text,
        "ids": list(row.tokens.response),
        "tokens": [bare(text) for text in lens.texts[number]],
        "methods": [_reading(method.rows[number], lens.pieces) for method in lens.methods],
    }


def _reading(reading: Reading, pieces: Pieces) -> dict[str, Any]:
    return {
        "values": {name: [number_of(x) for x in v.tolist()] for name, v in reading.values.items()},
        "top": {name: _top(top, pieces) for name, top in reading.top.items()},
    }


def _top(top: Top, pieces: Pieces) -> dict[str, Any]:
    rows = zip(top.ids.tolist(), top.shares.tolist(), strict=True)
    shown = [
        [[i, bare(pieces.alone(i)), number_of(p)] for i, p in zip(ids, shares, strict=True)]
        for ids, shares in rows
    ]
    return {"best": shown, "own": [number_of(p) for p in top.own.tolist()]}


def number_of(x: float) -> float | str | None:
    """A number as JSON has it: null for none, text for an infinite one."""
    if math.isnan(x):
        return None
    return x if math.isfinite(x) else ("Infinity" if x > 0 else "-Infinity")
