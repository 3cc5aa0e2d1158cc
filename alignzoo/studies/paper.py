"""Results of several studies and worlds -> one page with all verdicts, the paper's order kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from alignzoo.contract.errors import UsageError, counted
from alignzoo.studies import words
from alignzoo.studies.facts import Result, Verdict
from alignzoo.studies.text import rows_of

INTRO = """\
Every claim is decided by paired differences with 95 % intervals: *reproduced* when all of them lie
where the claim says, *not* when none does, *in part* otherwise; *not (undecided)* when no interval
excludes it either. [How to read a verdict](../docs/reproduce.md). This page is made of the JSON
files in `results/reproduce/` by `python benchmarks/paper.py`."""


def paper(results: Sequence[Result]) -> str:
    """The page. Raises UsageError for two results of one study in one world."""
    studies: dict[str, dict[str, Result]] = {}
    for result in results:
        worlds = studies.setdefault(result.study, {})
        if result.world in worlds:
            raise UsageError(f"{result.study} on {result.world}: two results; leave one out")
        worlds[result.world] = result
    parts = ["# The paper's claims, tested", INTRO]
    for worlds in studies.values():
        parts += _study(worlds)
    return "\n\n".join(parts) + "\n"


def _study(worlds: Mapping[str, Result]) -> Iterator[str]:
    first = next(iter(worlds.values()))
    yield f"## {first.title}"
    source = f" ({first.source})" if first.source else ""
    yield f"`alignzoo reproduce {first.study}`{source}. {first.about}".rstrip()
    if claims := _claims(worlds):
        names = [f"{world} ({counted(len(r.seeds), 'seed')})" for world, r in worlds.items()]
        yield rows_of(("claim", "the paper", *names), claims)
    for world, result in worlds.items():
        yield f"### {first.title}: {world}"
        yield result.world_about
        rows = [[words.row_label(row), *cells] for row, cells in words.table(result)]
        yield rows_of(("row", *words.heads(result)), rows)
        yield " ".join([words.caption(result), *words.differing(result)])
        if result.notes:
            yield "\n".join(f"* {note}" for note in result.notes)
        yield "\n".join(
            f"* {name}: {f'`{text}`' if name == 'command' else text}"
            for name, text in words.made(result)
        )


def _claims(worlds: Mapping[str, Result]) -> list[list[str]]:
    """A row per claim, in the order in which worlds name them, a cell per world."""
    by_world = {w: {one.says: one for one in r.verdicts} for w, r in worlds.items()}
    every = {one.says: one for found in by_world.values() for one in found.values()}
    return [
        [
            says if one.by == "paper" else f"{says} (not tested by the paper)",
            one.paper or words.NONE,
            *(_cell(found.get(says)) for found in by_world.values()),
        ]
        for says, one in every.items()
    ]


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return words.NONE
    return f"**{words.verdict_word(verdict)}**: {verdict.reason}"
