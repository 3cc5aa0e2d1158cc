"""Pairwise comparison with a baseline, in two games."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignzoo import Answer, Column, DataError, Question, Reply, Verdict
from alignzoo_mt_bench.files import HOME
from alignzoo_mt_bench.grades import VERSION, WINNERS, estimate, overall, read_winner
from alignzoo_mt_bench.twoturns import TURNS, TwoTurnBenchmark

TEMPLATES = ("pair", "v2")
GAMES = (1, 2)  # the candidate is A in game 1 and B in game 2


@dataclass(frozen=True)
class MTBenchPairwise(TwoTurnBenchmark):
    """MT-Bench, pairwise: both replies to a turn side by side, each order once.

    A match is won when both games are, lost when both are, and a tie otherwise; a match with an
    unreadable game is left out. With W, L, T matches won, lost and tied

        win_rate_adjusted = (W + T/2) / (W + L + T).

    Source: arXiv:2306.05685 and FastChat 0e6d3e4. The files are those of `mt_bench`.
    """

    name = "mt_bench_pairwise"

    def settings(self) -> Mapping[str, Any]:
        """Digests of the files and the parser's version."""
        return {**super().settings(), "parser": VERSION}

    def questions(
        self, answers: Sequence[Answer], baseline: Sequence[Answer] | None
    ) -> Iterator[Question]:
        """Four per prompt: "81/2/1" is the second turn's first game."""
        if baseline is None:
            raise DataError(f"{HOME}_pairwise compares two models; name the other with `baseline`")
        material = self.material()
        for index, pair in enumerate(zip(answers, baseline, strict=True)):
            for turn in TURNS:
                for game in GAMES:
                    shown = pair if game == 1 else pair[::-1]
                    id_ = _id(pair[0], turn, game)
                    asked = material.ask(id_, index, turn, shown, TEMPLATES)
                    yield replace(asked, candidate=game - 1)

    def verdict(self, question: Question, reply: Reply) -> Verdict | None:
        """1 when the candidate won the game, 0 when the baseline did, 1/2 for a tie."""
        label = read_winner(reply.text)
        if label is None:
            return None
        place = WINNERS.index(label)
        value = 0.5 if place > 1 else float(place == question.candidate)
        return Verdict(value, label=label)

    def columns(
        self,
        answers: Sequence[Answer],
        baseline: Sequence[Answer] | None,
        verdicts: Mapping[str, Verdict],
    ) -> Mapping[str, Column]:
        """Shares of matches, over both turns and by turn."""
        games = [[_games(answer, turn, verdicts) for turn in TURNS] for answer in answers]
        played = [[match for match in own if match is not None] for own in games]
        results = [[outcome(*match) for match in own] for own in played]
        by_turn = [[[] if m is None else [outcome(*m)] for m in own] for own in games]

        def share(value: float) -> list[list[float]]:
            return [[float(x == value) for x in own] for own in results]

        return {
            "win_rate_adjusted": _column(results, "matches won + half of those tied", 1),
            "wins": _column(share(1.0), "share of matches won in both games", 1),
            "losses": _column(share(0.0), "share of matches lost in both games", -1),
            "ties": _column(share(0.5), "share of matches tied or decided by the order"),
            "first_turn": _column([own[0] for own in by_turn], "win_rate_adjusted of turn 1", 1),
            "second_turn": _column([own[1] for own in by_turn], "win_rate_adjusted of turn 2", 1),
            "consistency": _column(
                [[float(first == second) for first, second in own] for own in played],
                "share of matches whose two games agree",
            ),
            "length": Column(
                tuple(float(sum(map(len, answer.turns))) for answer in answers),
                "characters of both replies",
            ),
        }


def outcome(first: float, second: float) -> float:
    """A match from its two games: 1 won, 0 lost, 1/2 tied or undecided."""
    if first > 0.5 and second > 0.5:
        return 1.0
    return 0.0 if first < 0.5 and second < 0.5 else 0.5


def _games(
    answer: Answer, turn: int, verdicts: Mapping[str, Verdict]
) -> tuple[float, float] | None:
    """How far the candidate won each of a match's games; None when one could not be read."""
    first, second = (verdicts.get(_id(answer, turn, game)) for game in GAMES)
    return None if first is None or second is None else (first.value, second.value)


def _id(answer: Answer, turn: int, game: int) -> str:
    return f"{answer.sample.meta['id']}/{turn}/{game}"


def _column(values: Sequence[Sequence[float]], doc: str, better: int = 0) -> Column:
    own = tuple(overall([rows]) for rows in values)
    return Column(own, doc, better, estimate(values), whole=1)
