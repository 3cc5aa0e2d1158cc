"""Small pictures inside pages, drawn with the colours of the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 560, 190
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 26, 34


def bar(value: float, largest: float) -> str:
    """A number with a bar as long as its share of the largest."""
    return (
        f'<span class="bar" style="--share: {value / largest:.3f}"><span>{value:.2f}</span></span>'
    )


def curve(name: str, unit: str, lines: Mapping[str, Sequence[float | None]]) -> str:
    """A metric over the steps of runs, a line for each, as one SVG element."""
    points = {label: _points(values) for label, values in lines.items()}
    values = [x for line in points.values() for _, x in line]
    marks, last = ticks(min(values), max(values)), max(map(len, lines.values()))
    low, high = marks[0], marks[-1]

    def at(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (step - 1) / max(1, last - 1)
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    shown = escape(f"{name} ({unit})" if unit else name)
    parts = [f'<text class="name" x="0" y="14">{shown}</text>']
    for mark in marks:
        x, y = at(1, mark)
        parts.append(f'<path class="grid" d="M{x:.1f} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="y" x="{x - 8:.1f}" y="{y + 4:.1f}">{mark:g}</text>')
    for step in (1, *range(10, last + 1, 10)):
        place = f'x="{at(step, low)[0]:.1f}" y="{HEIGHT - 14}"'
        parts.append(f'<text class="x" {place}>{"step 1" if step == 1 else step}</text>')
    for n, line in enumerate(points.values()):
        path = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in line)
        parts.append(f'<polyline class="line{n % 2}" points="{path}"/>')
    words = (f"{k} from {v[0][1]:.3g} to {v[-1][1]:.3g}" for k, v in points.items())
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{shown}: {"; ".join(words)}"'
    return f'<svg class="curve" {box}>{"".join([*parts, *_legend(list(points))])}</svg>'


def _points(values: Sequence[float | None]) -> list[tuple[int, float]]:
    return [(step, x) for step, x in enumerate(values, 1) if x is not None]


def _legend(labels: Sequence[str]) -> Iterator[str]:
    """Names of the lines at the upper right, each with a piece of its line."""
    for n, label in enumerate(labels):
        x = WIDTH - RIGHT - 84 * (len(labels) - n)
        yield f'<polyline class="line{n % 2}" points="{x},10 {x + 22},10"/>'
        yield f'<text x="{x + 28}" y="14">{escape(label)}</text>'


def ticks(low: float, high: float) -> list[float]:
    """Round numbers around what is shown: at least two, at most six."""
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * k for k in (1, 2, 5, 10) if size * k >= span / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, max(last, first + 1) + 1)]
