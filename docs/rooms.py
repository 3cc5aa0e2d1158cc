"""Draw the rooms of the core and their imports: the SVG that CONTRIBUTING.md shows."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from textwrap import wrap

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))

from source_tree import CORE, arrows  # noqa: E402  (the tests of the rooms read the same)

Graph = Mapping[str, set[str]]

WIDTH, BOX, LINE, GAP = 1000, 226, 16, 46  # pixels; a box is as high as its lines
LETTERS = 32  # in a line of a box
HIDDEN = {"__main__"}
STYLE = """
svg { background: #fff }
rect { fill: #f6f8fa; stroke: #57606a }
text { font: 12px system-ui, sans-serif; fill: #24292f }
.name { font-weight: 600; font-size: 14px }
.inner { fill: #57606a }
path { fill: none; stroke: #0550ae; stroke-width: 1.6 }
.implied { stroke: #d0d7de; stroke-width: 1 }
"""


def floor_graph() -> dict[str, set[str]]:
    """Room on the floor -> rooms on the floor that it imports, sub-rooms counted with theirs."""
    graph: dict[str, set[str]] = {}
    for room, uses in arrows().items():
        own = room.split(".")[0]
        if own not in HIDDEN:
            graph.setdefault(own, set()).update({u.split(".")[0] for u in uses} - {own})
    return graph


def depth(room: str, graph: Graph) -> int:
    """How many rooms the longest way down has."""
    return max((1 + depth(used, graph) for used in graph[room]), default=0)


def below(room: str, graph: Graph) -> set[str]:
    """Every room that can be reached."""
    return graph[room].union(*(below(used, graph) for used in graph[room]))


def direct(room: str, graph: Graph) -> set[str]:
    """The imports that no other import of the room implies."""
    implied = set().union(*(below(used, graph) for used in graph[room]))
    return graph[room] - implied


def lines_of(room: str) -> list[str]:
    """What a room says it is for, and its sub-rooms."""
    file = CORE / room / "__init__.py"
    doc = ast.get_docstring(ast.parse((file if file.exists() else CORE / f"{room}.py").read_text()))
    first = (doc or "").split("\n\n")[0].replace("\n", " ")
    inner = sorted(path.parent.name for path in (CORE / room).glob("*/__init__.py"))
    return wrap(first, LETTERS) + wrap(f"rooms: {', '.join(inner)}", LETTERS) * bool(inner)


def places(graph: Graph) -> tuple[dict[str, tuple[float, float, int]], int]:
    """Room -> (left, top, height) with the highest layer first, and the height of the picture."""
    layers: dict[int, list[str]] = {}
    for room in sorted(graph):
        layers.setdefault(depth(room, graph), []).append(room)
    found, top = {}, 10
    for layer in sorted(layers, reverse=True):
        rooms = layers[layer]
        left = (WIDTH - len(rooms) * BOX - (len(rooms) - 1) * 20) / 2
        heights = {room: 28 + LINE * len(lines_of(room)) for room in rooms}
        for number, room in enumerate(rooms):
            found[room] = (left + number * (BOX + 20), top, heights[room])
        top += max(heights.values()) + GAP
    return found, top - GAP + 10


def picture() -> Iterator[str]:
    """The lines of the SVG."""
    graph = floor_graph()
    where, height = places(graph)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    yield "<title>The rooms of alignzoo: an arrow says who imports whom</title>"
    yield f"<style>{STYLE}</style>"
    for kind in ("implied", "direct"):
        for room in sorted(graph):
            ends = direct(room, graph)
            for used in sorted(ends if kind == "direct" else graph[room] - ends):
                yield f'<path class="{kind}" d="{_arrow(where[room], where[used])}"/>'
    for room, (left, top, tall) in where.items():
        yield f'<rect x="{left:g}" y="{top}" width="{BOX}" height="{tall}" rx="6"/>'
        yield f'<text class="name" x="{left + 10:g}" y="{top + 19}">{room}</text>'
        for number, line in enumerate(lines_of(room), 1):
            kind = ' class="inner"' if line.startswith("rooms:") else ""
            y = top + 19 + LINE * number
            yield f'<text{kind} x="{left + 10:g}" y="{y}">{escape(line)}</text>'
    yield "</svg>"


def _arrow(start: tuple[float, float, int], end: tuple[float, float, int]) -> str:
    x, y = start[0] + BOX / 2, start[1] + start[2]
    u, v = end[0] + BOX / 2, end[1]
    return f"M{x:g} {y:g}C{x:g} {y + 24:g} {u:g} {v - 30:g} {u:g} {v:g}m-4 -7l4 7l4 -7"
