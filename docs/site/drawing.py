"""Small pictures inside pages, drawn with the colours of the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 560, 190
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 26, 34


def bar(value: float, largest: float) -> str:
    """A number with a bar as long as its share of the largest."""
    return (
        f'<span class="bar" style="--share: {value / largest:.3f}"><span>{value:.2f}</span></span>'
    )


def curve(name: str, unit: str, values: Sequence[float | None]) -> str:
    """A metric over the steps of a run, as one SVG element."""
    points = [(n, x) for n, x in enumerate(values, 1) if x is not None]
    marks = ticks(min(x for _, x in points), max(x for _, x in points))
    low, high, last = marks[0], marks[-1], max(2, len(values))

    def across(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - 1) / (last - 1)

    def down(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    shown = f"{name} ({unit})" if unit else name
    lines = [
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(shown)} over {len(values)} steps: {points[0][1]:.3g} at first, '
        f'{points[-1][1]:.3g} at the end">',
        f'<text class="name" x="0" y="14">{escape(shown)}</text>',
    ]
    for mark in marks:
        y = down(mark)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text class="y" x="{LEFT - 8}" y="{y + 4:.1f}">{mark:g}</text>')
    for step in (1, *range(10, len(values) + 1, 10)):
        place = f'x="{across(step):.1f}" y="{HEIGHT - 14}"'
        lines.append(f'<text class="x" {place}>{"step 1" if step == 1 else step}</text>')
    path = " ".join(f"{across(n):.1f},{down(x):.1f}" for n, x in points)
    lines.append(f'<polyline points="{path}"/>')
    return "".join([*lines, "</svg>"])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers around what is shown: at least two, at most six."""
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * k for k in (1, 2, 5, 10) if size * k >= span / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, max(last, first + 1) + 1)]
