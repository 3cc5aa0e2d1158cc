"""What a method says of every token of some responses: from values to coloured lines."""

from __future__ import annotations

from alignzoo.lens.coloured import Legend, Line, Shown, token_of
from alignzoo.report.facts import StageLens


def drawn_lens(one: StageLens) -> tuple[Legend, list[Shown]]:
    """The scale and the coloured lines of lines.html.j2."""
    legend = Legend(one.signal, one.unit, one.limit)
    shown = [
        Shown(
            said.number,
            said.place,
            said.label,
            said.prompt,
            (Line(one.signal, tuple(token_of(t.parts, t.value, legend) for t in said.tokens)),),
        )
        for said in one.responses
    ]
    return legend, shown
