"""Single-answer grading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignzoo import Answer, Column, Question, Reply, Verdict, option
from alignzoo_mt_bench.files import CORRECTED, ORIGINAL, PROMPTS, QUESTIONS
from alignzoo_mt_bench.grades import (
    VERSION,
    estimate,
    on_scale,
    overall,
    read_grade,
)
from alignzoo_mt_bench.twoturns import TURNS, TwoTurnBenchmark, categories

TEMPLATES = ("single", "v1")
OFFICIAL = "gpt-4"  # the references of the official set-up


@dataclass(frozen=True)
class MTBench(TwoTurnBenchmark):
    """MT-Bench, single-answer grading: every reply of both turns gets a grade from 1 to 10.

    average = mean of all grades that could be read; first_turn and second_turn are the means of
    one turn's. Source: arXiv:2306.05685 and FastChat 0e6d3e4, which prints no interval; those here
    are 95 % bootstrap intervals over questions, both turns of a question drawn together. Unlike
    there, a number outside the scale is no grade, unless `strict: false` or the official references
    (`references: gpt-4`) ask for the official reading.
    """

    name = "mt_bench"
    files = (QUESTIONS, PROMPTS, CORRECTED, ORIGINAL)
    compares = False
    strict: bool | None = option(
        None,
        "a number outside 1..10 is no grade; false: the official reading, in which it is one; "
        "null: false with the official references, else true",
    )

    def settings(self) -> Mapping[str, Any]:
        """Digests of the files and the parser's version."""
        return {**super().settings(), "parser": VERSION}

    def questions(
        self, answers: Sequence[Answer], baseline: Sequence[Answer] | None
    ) -> Iterator[Question]:
        """Two per answer, "81/1" and "81/2": the first reply, and the second in its context."""
        material = self.material()
        for index, answer in enumerate(answers):
            for turn in TURNS:
                yield material.ask(row_id(answer, turn), index, turn, [answer], TEMPLATES)

    def verdict(self, question: Question, reply: Reply) -> Verdict | None:
        """The grade; the label is the text it was read from, in single brackets if the backup
        pattern was needed.
        """
        found = read_grade(reply.text)
        if found is None or (self._is_strict and not on_scale(found[0])):
            return None
        return Verdict(found[0], label=found[1])

    def columns(
        self,
        answers: Sequence[Answer],
        baseline: Sequence[Answer] | None,
        verdicts: Mapping[str, Verdict],
    ) -> Mapping[str, Column]:
        """The official three, the categories, and what the grades may hide."""
        grades = [[self._grades(answer, (turn,), verdicts) for turn in TURNS] for answer in answers]
        both = [[*first, *second] for first, second in grades]
        beyond = [float(sum(not on_scale(x) for x in own)) for own in both]
        columns = {
            "average": self._average(both, int(sum(beyond))),
            "first_turn": _column([g[0] for g in grades], "mean grade of the first replies", 1),
            "second_turn": _column([g[1] for g in grades], "mean grade of the second replies", 1),
        }
        for name, members in categories(answers):
            own = [grades_ if i in members else [] for i, grades_ in enumerate(both)]
            columns[f"category/{name}"] = _column(own, f"mean of the grades in {name}")
        return columns | {
            "out_of_range": Column(tuple(beyond), "grades outside 1 to 10 per question"),
            "length": Column(
                tuple(float(sum(map(len, answer.turns))) for answer in answers),
                "characters of both replies",
            ),
        }

    @property
    def _is_strict(self) -> bool:
        return self.references != OFFICIAL if self.strict is None else self.strict

    def _average(self, grades: Sequence[Sequence[float]], beyond: int) -> Column:
        """The mean of all grades. Those outside the scale count in the official reading, and where
        a judge gives scores instead of replies.
        """
        how = "" if self._is_strict else ", and any number of the official reading"
        found = _column(grades, f"mean of all grades, 1 to 10{how}", 1)
        total = sum(map(len, grades))
        words = f"{beyond} of {total} grades are outside 1 to 10 and count"
        return replace(found, note=words if beyond else "")

    def _grades(
        self, answer: Answer, turns: Sequence[int], verdicts: Mapping[str, Verdict]
    ) -> list[float]:
        found = (verdicts.get(row_id(answer, turn)) for turn in turns)
        return [verdict.value for verdict in found if verdict is not None]


def row_id(answer: Answer, turn: int) -> str:
    """The id of the question about one turn."""
    return f"{answer.sample.meta['id']}/{turn}"


def _column(values: Sequence[Sequence[float]], doc: str, better: int = 0) -> Column:
    """Per question the mean of its rows; the figure is the mean over all rows."""
    return Column(tuple(overall([own]) for own in values), doc, better, estimate(values))
