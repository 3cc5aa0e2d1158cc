"""A lens as one HTML file, and its first responses as a section for other pages.

The script draws what is in sight from compact data; without JavaScript the first responses are
there as text, coloured by the quantity that the page opens with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from alignzoo.lens.coloured import COLOURS, STEPS, Legend, Line, Shown, Token, parts_of, token_of
from alignzoo.lens.export import described
from alignzoo.lens.pack import packed
from alignzoo.lens.read import Quantity
from alignzoo.lens.view import Lens, at_tokens, differences, limit_of, opening, shared_opening
from alignzoo.pages import Source, render

FOLDER = Path(__file__).parent
PAGE = Source(FOLDER, styles=("page.css",), scripts=("data.js", "drawings.js", "page.js"))
STATIC = 12  # responses that can be read without JavaScript


def render_lens(lens: Lens, signals: Sequence[str] = ()) -> str:
    """The page. `signals` names the quantity that each method opens with; else its own first."""
    shown, legends = first_responses(lens, STATIC, signals)
    values = {
        "methods": [described(method) for method in lens.methods],
        "n_rows": len(lens.rows),
        "n_tokens": lens.n_tokens,
        "notes": lens.notes,
        "shown": shown,
        "legends": legends,
        "opening": [q.name for q in _openings(lens, signals)],
        "shift": lens.shift,
        "steps": range(2 * STEPS + 1),
        "apart": len(legends) == len(lens.methods) > 1,
        "data": packed(lens),
    }
    return render("page.html.j2", [COLOURS, PAGE], values)


def first_responses(
    lens: Lens, limit: int = STATIC, signals: Sequence[str] = ()
) -> tuple[list[Shown], list[Legend]]:
    """The first responses as coloured lines, for `lines` of lines.html.j2 on any page that takes
    the style of `COLOURS` and this folder's templates.
    """
    quantities = _openings(lens, signals)
    columns = list(_columns(lens, quantities))
    legends = _scaled(
        [Legend(name, unit, limit_of(values)) for name, unit, values in columns],
        alike=len({q.name for q in quantities}) == 1,
    )
    shown = []
    for number, row in enumerate(lens.rows[:limit]):
        lines = tuple(
            Line(legend.name, _tokens(lens.texts[number], values[number], legend))
            for legend, (_, _, values) in zip(legends, columns, strict=True)
        )
        shown.append(Shown(number + 1, row.near, row.label, row.prompt_text, lines))
    return shown, legends


def _scaled(legends: list[Legend], *, alike: bool) -> list[Legend]:
    """One signal of two methods has one scale, so that equal colours are equal values."""
    if not alike or len(legends) != 3:
        return legends
    limit = max(legends[0].limit, legends[1].limit)
    return [*(replace(legend, limit=limit) for legend in legends[:2]), legends[2]]


def _openings(lens: Lens, signals: Sequence[str]) -> list[Quantity]:
    """One per method; two methods open with a quantity that both have, so that they compare."""
    if len(lens.methods) == 1 and not signals:
        return [opening(lens.methods[0])]
    if signals:  # the last one holds for the methods without one of their own
        names = [*signals, *([signals[-1]] * len(lens.methods))]
        return [opening(method, name) for method, name in zip(lens.methods, names, strict=False)]
    return list(shared_opening(*lens.methods))


def _columns(lens: Lens, quantities: Sequence[Quantity]) -> Iterator[tuple[str, str, list[Tensor]]]:
    """(name, unit, values of every response) of each line."""
    for method, quantity in zip(lens.methods, quantities, strict=True):
        values = [at_tokens(method, quantity, r, lens.shift) for r in range(len(lens.rows))]
        yield f"{method.method.label}: {quantity.name}", quantity.unit, values
    if len(quantities) > 1 and quantities[0].unit == quantities[1].unit:
        pair = (quantities[0], quantities[1])
        yield "difference", quantities[0].unit, list(differences(lens, pair, lens.shift))


def _tokens(texts: Sequence[str], values: Tensor, legend: Legend) -> tuple[Token, ...]:
    return tuple(
        token_of(parts_of(text), x, legend) for text, x in zip(texts, values.tolist(), strict=True)
    )
