"""The benchmark: what grade a judge gives every answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from alignzoo import (
    Answer,
    Column,
    Decoding,
    Question,
    Reply,
    Verdict,
    option,
)
from alignzoo_pairwise.template import GRADE, GRADE_SLOTS, fill_one
from alignzoo_pairwise.worded import Worded

LOWEST, HIGHEST = 1, 10
PARSER = 2  # of the rules in `read_grade`; another version makes another result
_STATEMENT = re.compile(
    r"[^\w>?\"'“‘]*(?:(?:so|thus|therefore|hence|my|the|final|overall)\W+)*"
    r"(?:grade|score|rating|mark)\b[\s*_`:=]*(?:is[\s*_`:]+)?(?P<open>\[\[)?(?P<grade>\d+(?:\.\d+)?)"
    r"(?(open)\]\]|\s*(?:/\s*10|out of 10)?)[^\w?%]*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pointwise(Worded):
    """Mean grade: a judge grades every answer alone, from 1 to 10.

    A grade is a line that is nothing but "Grade: [[7]]" (or score, rating, mark, the bare number,
    "/10"); the last one counts, and a number outside the scale (-3, .5, 7%) is none. In the manner
    of MT-Bench's single-answer grading (arXiv:2306.05685), with words of our own, for any prompts.
    """

    name = "pointwise"
    compares = False
    own_template = GRADE
    slots = GRADE_SLOTS
    parser = PARSER

    template: str | None = option(
        None, "your instruction to the judge, a file with {prompt} and {answer}"
    )

    def questions(
        self, answers: Sequence[Answer], baseline: Sequence[Answer] | None
    ) -> Iterator[Question]:
        """One per answer."""
        template = self.instruction()
        for index, answer in enumerate(answers):
            yield Question(
                id=f"{index}",
                index=index,
                answers=(answer,),
                messages=({"role": "user", "content": fill_one(template, answer)},),
                decoding=Decoding(max_tokens=self.max_tokens),
            )

    def verdict(self, question: Question, reply: Reply) -> Verdict | None:
        """The grade, as `read_grade` finds it."""
        grade = read_grade(reply.text, cut=reply.finish == "length")
        return None if grade is None else Verdict(grade, label=f"{grade:g}")

    def columns(
        self,
        answers: Sequence[Answer],
        baseline: Sequence[Answer] | None,
        verdicts: Mapping[str, Verdict],
    ) -> Mapping[str, Column]:
        """`grade` and `length`."""
        found = [verdicts.get(f"{index}") for index in range(len(answers))]
        return {
            "grade": Column(
                tuple(verdict.value if verdict else None for verdict in found),
                "mean grade, 1 to 10",
                1,
            ),
            "length": Column(
                tuple(float(answer.n_tokens) for answer in answers),
                "response tokens, stop token not counted; words of an outputs file",
            ),
        }


def read_grade(reply: str, *, cut: bool = False) -> float | None:
    """The number in the last line that states a grade; None where there is none on the scale.

    Of a reply that was cut only a number in brackets counts: another may lack a digit.
    """
    found = [_STATEMENT.fullmatch(line.strip()) for line in reply.splitlines()]
    stated = [line for line in found if line and (line["open"] or not cut)]
    grade = float(stated[-1]["grade"]) if stated else None
    return grade if grade is not None and LOWEST <= grade <= HIGHEST else None
