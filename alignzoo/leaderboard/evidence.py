"""What runs kept beside the numbers: prompts, answers and verdicts, for the page."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.contract.evaluation import mean
from alignzoo.leaderboard.fold import Section, finite, readable, typed

LONGEST = 20_000  # characters of one text on the page


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: str
    text: str


@dataclass(frozen=True)
class Reply:
    """One answer: its turns, the user's later turns between them, and its own score if any."""

    turns: tuple[Turn, ...]
    score: float | None = None
    features: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Judgment:
    """One question to a judge about an answer."""

    id: str
    judge: str
    label: str
    value: float | None
    reply: str
    error: str | None
    first: bool  # whether the model's answer was shown first


@dataclass(frozen=True)
class Exchange:
    """A prompt with one model's answers and what was said about them."""

    prompt: tuple[Turn, ...]
    replies: tuple[Reply, ...]
    baseline: Reply | None  # the answer that it was compared with, where the row has it
    judgments: tuple[Judgment, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """One model's evaluation. Prompts are counted from 0; only some of them keep their texts."""

    shared: Mapping[str, Any]  # what all results of its section have in common
    values: Mapping[str, Sequence[float | None]]  # column -> a value per prompt
    names: tuple[str, ...]  # of the prompts, in the benchmark
    categories: tuple[str, ...]  # "" where a prompt has none
    characters: float  # mean over prompts of an answer's length
    truncated: float | None  # share of the answers that were cut at their limit; None: not known
    exchanges: Mapping[int, Exchange]


def chosen(n_prompts: int, limit: int) -> Set[int]:
    """The prompts whose texts are kept: at most `limit`, drawn once and for all, because files are
    often sorted by source or category.
    """
    return set(random.Random(0).sample(range(n_prompts), min(n_prompts, limit)))


def find_evidence(
    folders: Iterable[Path], sections: Sequence[Section], limit: int
) -> dict[str, Evidence]:
    """Result -> what its evaluation kept, as far as the runs still have it.

    Raises DataError for a damaged file.
    """
    wanted = {row.result: row.prompts for section in sections for row in section.rows}
    found: dict[str, Evidence] = {}
    for file in (
        f for folder in folders for f in sorted(folder.glob("evaluations/*/*/scores.json"))
    ):
        with readable(file):
            scores = json.loads(file.read_text(encoding="utf-8"))
            result = scores["row"]["result"]
            if result not in wanted or result in found:
                continue
            kept = chosen(wanted[result], limit)
        if (file.parent / "answers.jsonl").exists():
            evidence = _evidence(file.parent, scores, kept)
            with readable(file.parent):
                found[result] = typed(evidence)
    return found


def _evidence(folder: Path, scores: Mapping[str, Any], kept: Set[int]) -> Evidence:
    file = folder / "judgments.jsonl"
    with readable(file):
        judgments = _judgments(file, kept) if file.exists() else {}
    exchanges, names, categories, lengths = {}, [], [], []
    ended: list[bool] = []
    with readable(folder / "answers.jsonl"):
        for number, row in enumerate(_rows(folder / "answers.jsonl")):
            meta = row.get("meta") or {}
            names.append(str(meta.get("id", number + 1)))
            categories.append(str(meta.get("category") or ""))
            lengths.append(_length(row))
            ended += [bool(r["ended"]) for r in row["responses"] if "ended" in _mapping(r)]
            if number in kept:
                exchanges[number] = _exchange(row, judgments.get(number, ()))
    return Evidence(
        shared=scores.get("section", {}),
        values=scores.get("values", {}),
        names=tuple(names),
        categories=tuple(categories),
        characters=mean(lengths) if lengths else 0.0,
        truncated=1 - mean(ended) if ended else None,
        exchanges=exchanges,
    )


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)


def _judgments(file: Path, kept: Set[int]) -> dict[int, tuple[Judgment, ...]]:
    found: dict[int, tuple[Judgment, ...]] = {}
    for row in _rows(file):
        if row["index"] in kept:
            found[row["index"]] = (*found.get(row["index"], ()), _judgment(row))
    return found


def _judgment(row: Mapping[str, Any]) -> Judgment:
    scores = ", ".join(f"{score:g}" for score in row.get("scores") or ())
    return Judgment(
        id=str(row["id"]),
        judge=row["judge"],
        label=row.get("label") or ("asked on" if row.get("followed") else ""),
        value=finite(row["value"]),
        reply=cut(row.get("reply") or (f"scores {scores}" if scores else "")),
        error=row.get("error"),
        first=row.get("candidate", 0) == 0,
    )


def _exchange(row: Mapping[str, Any], judgments: tuple[Judgment, ...]) -> Exchange:
    texts = [_text(response) for response in row["responses"]]
    n = len(texts)
    later = tuple(row.get("later", ()))
    replies = tuple(
        Reply(_talk((*earlier, text), later), score, features)
        for earlier, text, score, features in zip(
            row.get("turns") or [()] * n,
            texts,
            row.get("scores") or [None] * n,
            row.get("features") or [None] * n,
            strict=True,
        )
    )
    theirs = row.get("baseline")
    baseline = Reply(_talk(tuple(theirs), later)) if theirs else None
    return Exchange(_prompt(row["prompt"]), replies, baseline, judgments)


def _talk(answers: Sequence[str], later: Sequence[str]) -> tuple[Turn, ...]:
    """The answers turn by turn, the user's later turns between them where they are known."""
    turns = [Turn("assistant", cut(answers[0]))]
    for number, answer in enumerate(answers[1:]):
        turns += [Turn("user", cut(later[number]))] if number < len(later) else []
        turns.append(Turn("assistant", cut(answer)))
    return tuple(turns)


def _prompt(prompt: str | Sequence[Mapping[str, str]]) -> tuple[Turn, ...]:
    if isinstance(prompt, str):
        return (Turn("user", cut(prompt)),)
    return tuple(Turn(message["role"], cut(message["content"] or "")) for message in prompt)


def _length(row: Mapping[str, Any]) -> float:
    """Mean characters of the answers to one prompt, all turns together."""
    earlier = sum(len(text) for turns in row.get("turns", ()) for text in turns)
    last = sum(len(_text(response)) for response in row["responses"])
    return (earlier + last) / len(row["responses"])


def _mapping(response: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {} if isinstance(response, str) else response


def _text(response: str | Mapping[str, Any]) -> str:
    return response if isinstance(response, str) else str(response["text"])


def cut(text: str) -> str:
    """The beginning of a very long text, with a word on how much is missing."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}\n[{len(text) - LONGEST:,} more characters are not on this page]"
