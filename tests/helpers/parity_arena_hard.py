"""Arena-Hard against upstream's numbers: win rates, style control, intervals, both revisions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alignzoo_arena_hard import (
    LENGTH,
    MARKDOWN,
    REVISIONS,
    STYLE,
    Entrant,
    Game,
    battles,
    chance,
    controlled_chances,
    interval_2024,
    rating,
    raw_chances,
    record,
    regression,
    style_control,
    style_of,
    win_rate,
)
from alignzoo_arena_hard.files import Recorded, read_answers, read_questions
from alignzoo_arena_hard.pool import read_pool
from alignzoo_arena_hard.style import table

FOLDER = "arena_hard"
BASELINE = "gpt-4-0314"
SCORE, CONTROLLED, INTERVAL, COEFFICIENT = 0.01, 0.05, 0.8, 1.5e-3  # tolerances
Found = Iterator[tuple[tuple[str, ...], Any, Any, float]]  # path, ours, official, tolerance


@dataclass(frozen=True)
class Setting:
    """How one of upstream's tables was printed."""

    weight: int = 3
    games: int = 2
    features: tuple[int, ...] = ()  # none: no style control


TABLES = {
    "raw": Setting(),
    "style_control": Setting(features=STYLE),
    "length_control": Setting(features=LENGTH),
    "markdown_control": Setting(features=MARKDOWN),
    "weight1": Setting(weight=1),
    "first_game_only": Setting(games=1),
}


@dataclass(frozen=True)
class Data:
    """The models that the folder has judgments of."""

    folder: Path

    @cached_property
    def questions(self) -> list[str]:
        return [asked.id for asked in read_questions(self.folder / "question.jsonl")]

    @cached_property
    def models(self) -> dict[str, Any]:
        return {model.name: model for model in read_pool(self.folder)}

    @cached_property
    def answers(self) -> dict[str, dict[str, Recorded]]:
        return {path.stem: read_answers(path) for path in (self.folder / "model_answer").iterdir()}

    def style(self, model: str) -> Any:
        """[Q, 4]"""
        found = [self.answers[model][id] for id in self.questions]
        return table([style_of(answer.text, answer.n_tokens) for answer in found])

    def duels(self, model: str, revision: str = "2024", setting: Setting | None = None) -> list:
        """The games of every question."""
        how, found = REVISIONS[revision], setting or Setting()
        return [
            [
                how.game(label, 1 - game, found.weight)
                for game, label in enumerate(self.models[model].labels[id][: found.games])
            ]
            for id in self.questions
        ]

    def entrant(self, model: str, setting: Setting | None = None) -> Entrant:
        """One model of a fit of 2024."""
        games = record(self.duels(model, setting=setting), REVISIONS["2024"].counting)
        return Entrant(games, self.style(model), self.style(BASELINE))

    def tokens(self, model: str) -> int:
        """Mean length, cut to a whole number as upstream prints it."""
        lengths = [answer.n_tokens for answer in self.answers[model].values()]
        return int(sum(lengths) / len(lengths))


def check(folder: Path, expected: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """Compare every number of the section; the key paths that were found equal."""
    data = Data(folder / FOLDER)
    checked = set()
    for path, ours, official, tolerance in everything(data, expected):
        place = ".".join((FOLDER, *path))
        assert close(ours, official, tolerance), f"{place}: {ours}, not {official}"
        checked.add((FOLDER, *path))
    return checked


def everything(data: Data, expected: Mapping[str, Any]) -> Found:
    """All comparisons that the folder allows."""
    for name in TABLES.keys() & expected.keys():
        for path, *rest in of_table(data, TABLES[name], expected[name]):
            yield (name, *path), *rest
    for name, part in (
        ("head_2025_mean_scores", of_2025),
        ("real_battles", of_real_battles),
        ("style_control_each_model_alone", of_single_fits),
    ):
        for path, *rest in part(data, expected.get(name, {})):
            yield (name, *path), *rest


def close(ours: Any, official: Any, tolerance: float) -> bool:
    """Whether numbers, or lists of them, agree; anything else must be equal."""
    if isinstance(official, Sequence) and not isinstance(official, str):
        pairs = zip(ours, official, strict=True)
        return all(close(x, y, tolerance) for x, y in pairs)
    if isinstance(official, int | float):
        return abs(ours - official) <= tolerance
    return ours == official


def of_table(data: Data, setting: Setting, expected: Mapping[str, Any]) -> Found:
    """One of upstream's leaderboards; its files were read in the order of their names."""
    revision = REVISIONS["2024"]
    names = list(data.models)
    games = battles([data.duels(name, setting=setting) for name in names], revision.counting)
    yield ("n_battles",), len(games), expected["n_battles"], 0
    statistic, scores, coefficients = raw_chances(len(names)), {}, None
    if setting.features:
        entrants = [data.entrant(name, setting) for name in names]
        fitted = style_control(entrants, revision.style, setting.features)
        statistic = controlled_chances(regression(entrants, revision.style, setting.features))
        scores = dict(zip(names, fitted.scores, strict=True))
        coefficients = fitted.coefficients
    else:
        for name in names:
            own = record(data.duels(name, setting=setting), revision.counting)
            scores[name] = 100 * win_rate(own)
    intervals = dict(zip(names, interval_2024(games, statistic), strict=True))
    half = 100 * chance(1000.0)
    cells = {name: (scores[name], *intervals[name], data.tokens(name)) for name in names}
    cells[BASELINE] = (half, half, half, data.tokens(BASELINE))
    tolerances = (CONTROLLED if setting.features else SCORE, INTERVAL, INTERVAL, 0)
    for name in cells.keys() & expected["leaderboard"].keys():
        columns = zip(
            ("score", "lower", "upper", "avg_tokens"), cells[name], tolerances, strict=True
        )
        for column, ours, tolerance in columns:
            official = expected["leaderboard"][name][column]
            yield ("leaderboard", name, column), ours, official, tolerance
    yield from of_coefficients(coefficients, scores, expected)


def of_coefficients(ours: Any, scores: Mapping[str, float], expected: Mapping[str, Any]) -> Found:
    """Style coefficients as printed, and unrounded where they are known."""
    text = expected["style_coefficients_printed"]
    yield ("style_coefficients_printed",), ours, text and printed(text), COEFFICIENT
    if "coef_full_precision" in expected:
        yield ("coef_full_precision",), ours, expected["coef_full_precision"], COEFFICIENT
    for name, official in expected.get("score_full_precision", {}).items():
        if name in scores:
            yield ("score_full_precision", name), scores[name], official, CONTROLLED


def printed(text: str) -> list[float]:
    """The numbers of "{'a': np.float64(0.269), ...}" in order; a count of names guards them."""
    numbers = [float(x) for x in re.findall(r"':\s*(?:np\.float64\()?(-?[\d.]+)", text)]
    assert len(numbers) == text.count("':"), text
    return numbers


def of_2025(data: Data, expected: Mapping[str, Any]) -> Found:
    """Means of the later program, and how many weighted games they are of."""
    for name in expected.keys() & data.models.keys():
        own = record(data.duels(name, "2025"), REVISIONS["2025"].counting)
        yield (name, "mean"), 100 * win_rate(own), expected[name]["mean"], SCORE
        yield (name, "n"), own.weight.sum(), expected[name]["n"], 0


def of_single_fits(data: Data, expected: Mapping[str, Any]) -> Found:
    """Style control with one candidate per fit."""
    for name in expected.keys() & data.models.keys():
        found = style_control([data.entrant(name)], REVISIONS["2024"].style, STYLE)
        yield (name, "score"), found.scores[0], expected[name]["score"], CONTROLLED
        yield (name, "coef"), found.coefficients, expected[name]["coef"], COEFFICIENT


def of_real_battles(data: Data, expected: Mapping[str, Any]) -> Found:
    """Ratings and win rates of battles on record, written out one by one."""
    if not expected:
        return
    (path,) = data.folder.glob("real_battles*.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    (baseline,) = {row["model_a"] for row in rows}
    value = {"model_a": 0.0, "model_b": 1.0, "tie": 0.5}
    chances = {baseline: 0.5}
    for name in {row["model_b"] for row in rows}:
        games = [[Game(value[row["winner"]])] for row in rows if row["model_b"] == name]
        chances[name] = win_rate(record(games, REVISIONS["2024"].counting))
    for name in expected.keys() & chances.keys():
        yield (name, "elo"), rating(chances[name]), expected[name]["elo"], SCORE
        yield (name, "win_rate"), 100 * chances[name], expected[name]["win_rate"], SCORE
