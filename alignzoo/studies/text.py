"""A result as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignzoo.studies import words
from alignzoo.studies.facts import Result


def markdown(result: Result, figure: str = "") -> str:
    """The whole result; `figure` is the file of its drawing, where there is one."""
    parts = [*_head(result), *_verdicts(result), *_table(result)]
    if figure:
        parts.append(
            f"![Means, intervals and curves of {result.study} on {result.world}]({figure})"
        )
    parts += [*_differences(result), *_by_seed(result), *_made(result)]
    return "\n\n".join(parts) + "\n"


def rows_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; what would end a cell is escaped."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    clean = ([" ".join(text.split()).replace("|", "\\|") for text in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in clean)


def verdict_rows(result: Result) -> list[list[str]]:
    """Claim, what the paper reports, verdict, why."""
    return [
        [
            one.says if one.by == "paper" else f"{one.says} (not tested by the paper)",
            one.paper or words.NONE,
            f"**{words.verdict_word(one)}**",
            one.reason,
        ]
        for one in result.verdicts
    ]


def _head(result: Result) -> Iterator[str]:
    yield f"# {result.title}: {result.world}"
    about = f"Study `{result.study}` on `{result.world}`"
    source = f"; {result.source}" if result.source else ""
    yield f"{about}{source}. {result.world_about}"
    if result.about:
        yield result.about


def _verdicts(result: Result) -> Iterator[str]:
    if result.verdicts:
        yield f"## Verdicts: {words.counts(result)}"
        yield rows_of(("claim", "the paper", "verdict here", "why"), verdict_rows(result))


def _table(result: Result) -> Iterator[str]:
    yield "## Results"
    rows = [[words.row_label(row), *cells] for row, cells in words.table(result)]
    yield rows_of(("row", *words.heads(result)), rows)
    yield " ".join([words.caption(result), *words.differing(result)])
    if result.notes:
        yield "To be known:\n\n" + "\n".join(f"* {note}" for note in result.notes)


def _differences(result: Result) -> Iterator[str]:
    tested = [one for one in result.verdicts if one.comparisons]
    if tested:
        yield "## Paired differences"
    for one in tested:
        label = next(m.label for m in result.measures if m.name == one.measure)
        rows = [[what, *cells] for what, cells in words.differences(result, one)]
        yield f"{one.says} ({label}):"
        yield rows_of(words.DIFFERENCE_HEADS, rows)


def _by_seed(result: Result) -> Iterator[str]:
    if len(result.seeds) < 2:
        return
    yield "## Seed by seed"
    seeds = [f"seed {one.seed}" for one in result.seeds]
    for column in words.columns(result):
        rows = [[label, *cells] for label, cells in words.by_seed(result, column)]
        yield f"{column.head}:"
        yield rows_of(("row", *seeds), rows)


def _made(result: Result) -> Iterator[str]:
    yield "## How it was made"
    lines = (
        f"* {name}: {f'`{text}`' if name == 'command' else text}"
        for name, text in words.made(result)
    )
    yield "\n".join(lines)
