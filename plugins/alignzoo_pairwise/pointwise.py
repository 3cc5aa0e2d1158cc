"""The benchmark: what grade a judge gives every answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from alignzoo import (
    Answer,
    Column,
    Decoding,
    JudgedBenchmark,
    PromptSample,
    Question,
    Reply,
    Verdict,
    file_digest,
    option,
)
from alignzoo_pairwise.prompts import BUILT_IN as OWN_PROMPTS
from alignzoo_pairwise.prompts import LATER, check_file, read_prompts
from alignzoo_pairwise.template import GRADE, GRADE_SLOTS, fill_one, read_template

LOWEST, HIGHEST = 1, 10
PARSER = 1  # of the rules in `read_grade`; another version makes another result
_STATEMENT = re.compile(
    r"[^\w>?\"'“‘]*(?:(?:so|thus|therefore|hence|my|the|final|overall)\W+)*"
    r"(?:grade|score|rating|mark)\b[^\w?\d\[]*(?:is\W+)?(?P<open>\[\[)?(?P<grade>\d+(?:\.\d+)?)"
    r"(?(open)\]\]|\s*(?:/\s*10|out of 10)?)[^\w?]*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pointwise(JudgedBenchmark):
    """Mean grade: a judge grades every answer alone, from 1 to 10.

    A grade is a line that is nothing but "Grade: [[7]]" (or score, rating, mark, the bare number,
    "/10"); the last one counts, and a number outside the scale is no grade. In the manner of
    MT-Bench's single-answer grading (arXiv:2306.05685), with words of our own, for any prompts.
    """

    name = "pointwise"
    compares = False
    file_options = ("prompts_file", "template")
    prompts_file: str | None = option(
        None, "your prompts: .jsonl, .json (a list) or .txt (one per line); default: 21 of our own"
    )
    size: int | None = option(None, "only the first so many prompts", gt=0)
    template: str | None = option(
        None, "your instruction to the judge, a file with {prompt} and {answer}"
    )
    max_tokens: int = option(1024, "longest reply of the judge, in tokens", gt=0)

    def __post_init__(self) -> None:
        check_file(self._prompts_path)
        self._template()

    @property
    def _prompts_path(self) -> Path:
        return Path(self.prompts_file) if self.prompts_file else OWN_PROMPTS

    @property
    def _template_path(self) -> Path:
        return Path(self.template) if self.template else GRADE

    def _template(self) -> str:
        return read_template(self._template_path, GRADE_SLOTS)

    def settings(self) -> Mapping[str, Any]:
        """Digests of prompts and template, and the version of the rules that read replies."""
        return {
            "prompts": file_digest(self._prompts_path),
            "template": file_digest(self._template_path),
            "parser": PARSER,
        }

    def prompts(self, seed: int) -> Iterator[PromptSample]:
        """The file's prompts in its order, whatever the seed."""
        return islice(read_prompts(self._prompts_path), self.size)

    def sampling(self, prompt: PromptSample) -> Mapping[str, Any]:
        """Room for a whole answer: a judge must not grade one that was cut."""
        return {"max_new_tokens": 1024}

    def later_turns(self, prompt: PromptSample) -> Sequence[str]:
        """What a row of `turns` has the user say after the first reply."""
        return tuple(prompt.meta.get(LATER, ()))

    def questions(
        self, answers: Sequence[Answer], baseline: Sequence[Answer] | None
    ) -> Iterator[Question]:
        """One per answer."""
        template = self._template()
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
