"""What the policy said to the same prompts while it learnt, and what changed on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from alignzoo.contract.errors import counted
from alignzoo.engine.train.examples import FILE
from alignzoo.report.facts import Exchange, Said, Samples
from alignzoo.report.runs import Run, as_rows

SHARES = (0.0, 0.25, 0.5, 1.0)  # of the steps
PIECES = re.compile(r"\s+|\w+|[^\w\s]")  # blanks, words and marks
LONGEST = 4_000  # characters of a text


def samples_of(run: Run) -> Iterator[Samples | str]:
    """The samples of every train stage of a run, or a sentence why there are none."""
    for stage, log in run.logs.items():
        file = run.folder_of(stage) / FILE
        if not file.is_file():
            if log.rows:
                yield f"{run.name}/{stage}: no samples were logged while it learnt"
            continue
        rows, lost = as_rows(file)
        good = [row for row in rows if _is_sample(row)]
        if lost or len(good) < len(rows):
            number = lost + len(rows) - len(good)
            what = f"{counted(number, 'logged sample')} cannot be read"
            yield f"{run.name}/{stage}: {what} and {'are' if number > 1 else 'is'} left out"
        if good:
            yield Samples(run.name, stage, tuple(_exchanges(good)))


def _is_sample(row: Mapping[str, Any]) -> bool:
    kinds = {"step": int, "prompt": int, "asked": str, "answer": str, "tokens": int, "ended": bool}
    return all(type(row.get(key)) is kind for key, kind in kinds.items())


def _exchanges(rows: Sequence[Mapping[str, Any]]) -> Iterator[Exchange]:
    moments = _chosen(sorted({row["step"] for row in rows}))
    by_prompt: dict[int, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt"], {})[row["step"]] = row
    for answers in by_prompt.values():
        shown = [answers[step] for step in moments if step in answers]
        if shown:
            yield Exchange(_cut(shown[0]["asked"]), tuple(_said(shown)))


def _chosen(steps: Sequence[int]) -> list[int]:
    """The logged steps that are nearest to the beginning, 1/4, 1/2 and the last."""
    last = steps[-1]
    nearest = (min(steps, key=lambda step: abs(step - share * last)) for share in SHARES)
    return list(dict.fromkeys(nearest))


def _said(rows: Sequence[Mapping[str, Any]]) -> Iterator[Said]:
    before: str | None = None
    for row in rows:
        answer = _cut(row["answer"])
        parts = ((answer, False),) if before is None else tuple(differing(before, answer))
        yield Said(row["step"], row["tokens"], row["ended"], parts)
        before = answer


def differing(before: str, after: str) -> Iterator[tuple[str, bool]]:
    """The later text in parts, each with whether it is new; together they are the text."""
    old, new = PIECES.findall(before), PIECES.findall(after)
    for tag, _, _, start, end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if end > start:
            yield "".join(new[start:end]), tag != "equal"


def _cut(text: str) -> str:
    more = len(text) - LONGEST
    return text if more <= 0 else f"{text[:LONGEST]} [{more:,} more characters]"
