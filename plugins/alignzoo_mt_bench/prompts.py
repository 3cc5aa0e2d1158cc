"""What a judge is shown: templates filled in one pass.

A slot's text is never searched for slots again, so an answer that contains "{question}" stays as
it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from alignzoo import DataError
from alignzoo_mt_bench.files import HOME, Template

SLOT = re.compile(r"\{\{|\}\}|\{(\w+)\}")
GUIDED = ("math", "reasoning", "coding")  # categories whose judge sees a reference answer


def fill(template: Template, slots: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
    """The system message, if any, and the filled template as the user's.

    Doubled braces stand for single ones, as in Python's format strings. Raises DataError for a
    slot that nothing fills.
    """

    def text(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return found[0][0]
        if name not in slots:
            raise DataError(f"{HOME}: nothing fills {{{name}}} of judge prompt '{template.name}'")
        return slots[name]

    user = {"role": "user", "content": SLOT.sub(text, template.text)}
    if not template.system:
        return (user,)
    return {"role": "system", "content": template.system}, user


def template_name(family: str, version: str, *, guided: bool, turn: int) -> str:
    """The name of a judge prompt: single-v1, single-math-v1-multi-turn, pair-v2, ..."""
    kind = f"{family}-math-v1" if guided else f"{family}-{version}"
    return kind + ("-multi-turn" if turn == 2 else "")


def question_slots(turns: Sequence[str], turn: int) -> dict[str, str]:
    """The user's part: one question for turn 1, both for turn 2."""
    if turn == 1:
        return {"question": turns[0]}
    return {"question_1": turns[0], "question_2": turns[1]}


def answer_slots(turns: Sequence[str], turn: int, who: str = "") -> dict[str, str]:
    """A model's part; `who` is "a" or "b" where two are shown."""
    name = f"answer_{who}" if who else "answer"
    if turn == 1:
        return {name: turns[0]}
    return {f"{name}_1": turns[0], f"{name}_2": turns[1]}


def reference_slots(reference: Sequence[str] | None) -> dict[str, str]:
    """The reference answers to both turns, where there are some."""
    if reference is None:
        return {}
    return {"ref_answer_1": reference[0], "ref_answer_2": reference[1]}
