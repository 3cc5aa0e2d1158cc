"""A result as a page and as a figure for other documents; both request nothing."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from alignzoo.pages import PAGES, Source, render, visible
from alignzoo.studies import words
from alignzoo.studies.drawn import bars, curves_of, ladders
from alignzoo.studies.facts import Result

HERE = Path(__file__).parent
SOURCE = Source(HERE, styles=("page.css",))


def render_result(result: Result, twin: str) -> str:
    """The page; `twin` is the file with its numbers."""
    verdicts = [
        (one, words.verdict_word(one), list(_comparisons(result, number)))
        for number, one in enumerate(result.verdicts)
    ]
    columns = words.columns(result)
    values = {
        "result": result,
        "counts": words.counts(result),
        "verdicts": verdicts,
        "measures": {one.name: one for one in result.measures},
        "heads": [text for one in columns for text in _heads(one)],
        "rows": list(words.table(result)),
        "label": words.row_label,
        "caption": " ".join([words.caption(result), *words.differing(result)]),
        "charts": curves_of(result),
        "ladders": ladders(result),
        "difference_heads": words.DIFFERENCE_HEADS,
        "by_seed": [(one.head, list(words.by_seed(result, one))) for one in columns],
        "made": words.made(result),
        "twin": twin,
    }
    return render("page.html.j2", [SOURCE], values)


def _heads(column: words.Column) -> list[tuple[str, bool]]:
    """Headings, and whether the figures below are the paper's."""
    return [(column.head, False), *([(column.paper, True)] if column.paper else [])]


def _comparisons(result: Result, number: int) -> list[tuple[str, list[str], object]]:
    verdict = result.verdicts[number]
    drawn = bars(verdict.comparisons)
    told = words.differences(result, verdict)
    return [(what, cells, bar) for (what, cells), bar in zip(told, drawn, strict=True)]


def render_figure(result: Result) -> str:
    """Means with intervals, and curves, as one SVG file, light or dark as its reader's machine;
    empty where there is nothing to draw.
    """
    drawn = {"charts": curves_of(result), "ladders": ladders(result)}
    if not any(drawn.values()):
        return ""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    template = environment.get_template("figure.svg.j2")
    style = (PAGES / "drawing.css").read_text(encoding="utf-8")
    return visible(template.render(drawn, title=result.title, style=style))
