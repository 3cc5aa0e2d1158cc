"""Other models on record, which share the style effect of a fit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo import DataError, file_digest
from alignzoo_arena_hard.files import Recorded, read_answers, rows

ANSWERS, JUDGMENTS = "model_answer", "model_judgment"
PLACE = "arena_hard: with.pool"


@dataclass(frozen=True)
class Judged:
    """One model of a pool: its answers, and the labels of the two games, by question."""

    name: str
    judge: str
    answers: Mapping[str, Recorded]
    labels: Mapping[str, tuple[str | None, ...]]


def read_pool(folder: Path) -> list[Judged]:
    """The models of `model_judgment/[<judge>/]<model>.jsonl`, answers in `model_answer/`.

    Raises DataError when the folder is not of that form, holds judgments of several judges, or
    lacks the answers of a model.
    """
    found = []
    for path in judgment_files(folder):
        answers = folder / ANSWERS / path.name
        if not answers.is_file():
            raise DataError(f"{PLACE}: {path} has no answers; put them into {answers}")
        found.append(_model(path, read_answers(answers)))
    judges = sorted({model.judge for model in found})
    if len(judges) > 1:
        raise DataError(
            f"{PLACE}: {folder} holds judgments of {' and '.join(judges)}; a pool has "
            f"one judge, so keep the files of one"
        )
    return found


def pool_identity(folder: Path) -> Mapping[str, Any]:
    """What decides a fit: the judge and, per model, a digest of its answers and judgments.

    Raises DataError as `read_pool` does.
    """
    judges = {model.judge for model in read_pool(folder)}
    models = {
        path.stem: hashlib.sha256(
            (file_digest(path) + file_digest(folder / ANSWERS / path.name)).encode()
        ).hexdigest()
        for path in judgment_files(folder)
    }
    return {"judge": ", ".join(sorted(judges)), "models": models}


def judgment_files(folder: Path) -> list[Path]:
    """The judgments, one file per model, in the order of their names."""
    place = folder / JUDGMENTS
    found = sorted([*place.glob("*.jsonl"), *place.glob("*/*.jsonl")])
    if not found:
        raise DataError(f"{PLACE}: no {JUDGMENTS}/<judge>/<model>.jsonl in {folder}")
    return found


def others(pool: Sequence[Judged], answers: Mapping[str, str]) -> list[Judged]:
    """The pool without the evaluated model: one with the same answers to all questions."""
    return [model for model in pool if not _same(model.answers, answers)]


def _same(recorded: Mapping[str, Recorded], answers: Mapping[str, str]) -> bool:
    return all(id in recorded and recorded[id].text == text for id, text in answers.items())


def _model(path: Path, answers: Mapping[str, Recorded]) -> Judged:
    labels: dict[str, tuple[str | None, ...]] = {}
    name, judge = path.stem, ""
    for place, id, row in rows(path):
        games = row.get("games")
        if not isinstance(games, list):
            raise DataError(f"{place}: no list under 'games', as Arena-Hard's judgments have it")
        labels[id] = tuple((game or {}).get("score") for game in games)
        judge = str(row.get("judge", judge))
    return Judged(name, judge, answers, labels)
