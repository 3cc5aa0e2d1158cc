"""What a method says of every token of some responses: from a lens to values."""

from __future__ import annotations

from alignzoo.lens.coloured import parts_of
from alignzoo.lens.view import Lens, at_tokens, limit_of, opening
from alignzoo.report.facts import ReadResponse, StageLens, TokenValue


def stage_lens(lens: Lens, run: str, stage: str, limit: int) -> StageLens:
    """The first responses under the signal that the lens of one method opens with.

    The scale is that of all responses that were read.
    """
    n = len(lens.rows)
    more = () if n <= limit else (f"Shown {_are(limit)} of the {n} responses that were read.",)
    (method,) = lens.methods
    quantity = opening(method)
    values = [at_tokens(method, quantity, row, lens.shift) for row in range(len(lens.rows))]
    responses = tuple(
        ReadResponse(number, row.near, row.label, row.prompt_text, _tokens(texts, of.tolist()))
        for number, (row, texts, of) in enumerate(
            zip(lens.rows[:limit], lens.texts, values, strict=False), 1
        )
    )
    positions = "official" if method.official else "aligned"
    scale = limit_of(values)
    return StageLens(
        run, stage, quantity.name, quantity.unit, positions, scale, (*lens.notes, *more), responses
    )


def _are(n: int) -> str:
    return "is 1" if n == 1 else f"are {n}"


def _tokens(texts: tuple[str, ...], values: list[float]) -> tuple[TokenValue, ...]:
    return tuple(TokenValue(parts_of(t), x) for t, x in zip(texts, values, strict=True))
