"""The benchmark: which of two models' answers a judge prefers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from alignzoo import (
    Answer,
    Column,
    DataError,
    Decoding,
    Question,
    Reply,
    Verdict,
    option,
)
from alignzoo_pairwise.reading import SHARES, VERSION, preferred
from alignzoo_pairwise.template import BUILT_IN as OWN_TEMPLATE
from alignzoo_pairwise.template import SLOTS, fill
from alignzoo_pairwise.worded import Worded

TIE = 0.5
Game = tuple[str, int]  # id of a question, place of the candidate's answer in it


@dataclass(frozen=True)
class Pairwise(Worded):
    """Win rate against a baseline: a judge compares two answers to each prompt, in both orders.

    A verdict v is 1 when the candidate's answer is better, 0 when the baseline's is, .5 for a tie;
    win_rate is the mean of a prompt's verdicts, so orders that disagree make a tie. Equal answers
    are a tie that nobody judges. A prompt of which a verdict is missing has no value: one order
    alone would bring in how much the judge likes a position.
    """

    name = "pairwise"
    own_template = OWN_TEMPLATE
    slots = SLOTS
    parser = VERSION

    orders: Literal["both", "one"] = option(
        "both", "show a pair in both orders, or in one that its prompt decides"
    )
    template: str | None = option(
        None, "your instruction to the judge, a file with {prompt}, {first} and {second}"
    )

    def questions(
        self, answers: Sequence[Answer], baseline: Sequence[Answer] | None
    ) -> Iterator[Question]:
        """One or two questions per prompt; none about two equal answers."""
        if baseline is None:
            raise DataError("pairwise compares two models; name the other one with `baseline`")
        template = self.instruction()
        for index, (own, other) in enumerate(zip(answers, baseline, strict=True)):
            if own.turns == other.turns:
                continue
            for name, place in self._games(index, own):
                shown = (own, other) if place == 0 else (other, own)
                yield Question(
                    id=name,
                    index=index,
                    answers=shown,
                    messages=({"role": "user", "content": fill(template, *shown)},),
                    decoding=Decoding(max_tokens=self.max_tokens),
                    candidate=place,
                )

    def verdict(self, question: Question, reply: Reply) -> Verdict | None:
        """FIRST, SECOND or TIE, as `reading.preferred` finds it."""
        word = preferred(reply.text)
        if word is None:
            return None
        share = SHARES[word]
        return Verdict(share if question.candidate == 0 else 1 - share, label=word.upper())

    def columns(
        self,
        answers: Sequence[Answer],
        baseline: Sequence[Answer] | None,
        verdicts: Mapping[str, Verdict],
    ) -> Mapping[str, Column]:
        """`win_rate`, the judge's `consistency` (both orders only) and `first_bias`, `length`."""
        judged = [self._judged(index, own, verdicts) for index, own in enumerate(answers)]
        wins = [_mean([win for win, _ in games]) for games in judged]
        for index, (own, other) in enumerate(zip(answers, baseline or (), strict=False)):
            if own.turns == other.turns:
                wins[index] = TIE
        columns = {
            "win_rate": Column(
                tuple(wins),
                "share of verdicts for it, ties and orders that disagree 1/2",
                better=1,
                whole=1,
            ),
            "consistency": Column(
                tuple(_agree(games) for games in judged),
                "share of pairs on which the judge's two orders agree",
                whole=1,
            ),
            "first_bias": Column(
                tuple(_mean([_for_first(*game) for game in games]) for games in judged),
                "share of verdicts for the answer shown first, ties 1/2; 1/2 is no bias",
                whole=1,
            ),
            "length": Column(
                tuple(float(answer.n_tokens) for answer in answers),
                "response tokens, stop token not counted; words of an outputs file",
            ),
        }
        if self.orders == "one":
            del columns["consistency"]
        return columns

    def _games(self, index: int, answer: Answer) -> tuple[Game, ...]:
        if self.orders == "both":
            return ((f"{index}/1", 0), (f"{index}/2", 1))
        return ((f"{index}/1", drawn_place(answer)),)

    def _judged(
        self, index: int, answer: Answer, verdicts: Mapping[str, Verdict]
    ) -> list[tuple[float, int]]:
        """(verdict for the candidate, its place) of every game; empty when one is missing."""
        games = self._games(index, answer)
        found = [(verdicts[name].value, place) for name, place in games if name in verdicts]
        return found if len(found) == len(games) else []


def drawn_place(answer: Answer) -> int:
    """Where the candidate's answer stands when only one order is shown, 0 or 1.

    It follows from the prompt alone, so that every model meets the judge on the same side.
    """
    text = json.dumps(answer.prompt, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()[0] % 2


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _for_first(win: float, place: int) -> float:
    return win if place == 0 else 1 - win


def _agree(games: Sequence[tuple[float, int]]) -> float | None:
    """Whether both orders came to the same side, or both to a tie."""
    if len(games) < 2:
        return None
    (one, _), (other, _) = games
    return float((one > TIE) == (other > TIE) and (one < TIE) == (other < TIE))
