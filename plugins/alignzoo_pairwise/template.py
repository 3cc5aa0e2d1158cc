"""The instruction a judge reads: a text with slots for the prompt and the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from alignzoo import Answer, DataError
from alignzoo_pairwise.prompts import LATER

BUILT_IN = Path(__file__).with_name("judge.md")
GRADE = Path(__file__).with_name("grade.md")
SLOTS = ("prompt", "first", "second")
GRADE_SLOTS = ("prompt", "answer")


def read_template(path: Path, slots: Sequence[str]) -> str:
    """The template's text; raises DataError when it cannot be read or a slot is missing."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path}: no readable template; write one with {_listed(slots)}") from None
    missing = [slot for slot in slots if f"{{{slot}}}" not in text]
    if missing:
        raise DataError(f"{path}: the template has no {_listed(missing)}; put it where it belongs")
    return text


def _listed(slots: Sequence[str]) -> str:
    return ", ".join(f"{{{slot}}}" for slot in slots)


def fill(template: str, first: Answer, second: Answer) -> str:
    """The template with its slots filled at once: braces in an answer stay what they are."""
    return _filled(
        template,
        {"prompt": shown_prompt(first), "first": shown(first), "second": shown(second)},
    )


def fill_one(template: str, answer: Answer) -> str:
    """The same for a template with one answer."""
    return _filled(template, {"prompt": shown_prompt(answer), "answer": shown(answer)})


def _filled(template: str, texts: Mapping[str, str]) -> str:
    slot = re.compile(r"\{(" + "|".join(texts) + r")\}")
    return slot.sub(lambda found: texts[found.group(1)], template)


def shown_prompt(answer: Answer) -> str:
    """The prompt as a reader wants it: a conversation with its speakers, else only the text."""
    prompt = answer.prompt
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return _transcript([(message["role"], message["content"] or "") for message in prompt])


def shown(answer: Answer) -> str:
    """The answer; of several turns the whole exchange that followed the prompt."""
    if not answer.earlier:
        return answer.response.text
    asked = list(answer.sample.meta.get(LATER, ()))
    exchange = [("assistant", answer.turns[0])]
    for user, reply in zip(asked, answer.turns[1:], strict=False):
        exchange += [("user", user), ("assistant", reply)]
    return _transcript(exchange)


def _transcript(said: Sequence[tuple[str, str]]) -> str:
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in said)
