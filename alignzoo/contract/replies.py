"""What of a judge's reply counts: its own final words, in every benchmark alike.

A reply is read without its reasoning. One that is still thinking has no verdict, and one that was
cut by a limit of tokens has only the verdict that it ends with. The benchmark's parser sees what is
left, so that an official parser stays as its authors wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from alignzoo.contract.verdicts import JudgedBenchmark, Question, Reply, Verdict

VERSION = 1  # of the rules below; another version makes another result
CUT = frozenset({"length", "max_tokens", "model_length"})  # how servers call the limit of tokens

_TAG = r"(?:seed:|ant)?think(?:ing)?|thoughts?|reasoning|reflection|scratchpad"
_OPENS = (
    rf"<(?i:{_TAG})>",
    r"\[THINK\]",
    "◁think▷",
    r"<\|begin_of_thought\|>",
    r"<\|START_THINKING\|>",
    r"<\|channel\|>(?:analysis|commentary)",  # harmony
    r"\Aanalysis(?=[A-Z])",  # harmony, its special tokens left out
)
_CLOSES = (
    rf"</(?i:{_TAG})>",
    r"\[/THINK\]",
    "◁/think▷",
    r"<\|end_of_thought\|>",
    r"<\|END_THINKING\|>",
    r"<\|channel\|>final(?:<\|message\|>)?",
    "assistantfinal",
)
_MARK = re.compile(  # one in quotation marks is spoken of, not used
    rf"(?<![`\"'“‘])(?:(?P<opens>{'|'.join(_OPENS)})|(?P<closes>{'|'.join(_CLOSES)}))"
)
_ENDS = re.compile(r"(?:<\|(?:return|end)\|>\s*)+\Z")  # harmony's


def holds_reasoning(text: str) -> bool:
    """Whether a text has a mark that opens or closes reasoning, such as `<think>`."""
    return _MARK.search(text) is not None


def note_on_reasoning(answers: Sequence[Sequence[str]]) -> str | None:
    """What is to be said of answers, each in its turns, that show a judge what was thought."""
    n = sum(any(map(holds_reasoning, turns)) for turns in answers)
    if not n:
        return None
    return (
        f"{n} of {len(answers)} judged answers hold reasoning (`<think>` or the like), and the "
        "judge reads it as part of them"
    )


def without_reasoning(text: str) -> str | None:
    """The text with its blocks of reasoning taken out; None when it ends inside one.

    Known are `<think>`, `<thinking>`, `<thought>`, `<reasoning>`, `<reflection>`, `<scratchpad>`,
    `[THINK]`, `◁think▷`, `<|begin_of_thought|>`, `<|START_THINKING|>` and harmony's channels. What
    stands before an end without a beginning is reasoning too: templates open the block in the
    prompt. A text without any mark comes back as it is.
    """
    kept: list[str] = []
    start, thinking = 0, False
    for mark in _MARK.finditer(text):
        if mark["closes"]:
            kept = kept if thinking else []
            start, thinking = mark.end(), False
        elif not thinking:
            kept.append(text[start : mark.start()])
            thinking = True
    if thinking:
        return None
    return _ENDS.sub("", "\n".join([*kept, text[start:]]).strip()) if start else text


def was_cut(reply: Reply) -> bool:
    """Whether a limit of tokens ended the reply."""
    return (reply.finish or "").lower() in CUT


def read_verdict(
    benchmark: JudgedBenchmark, question: Question, reply: Reply
) -> Verdict | Question | None:
    """What the benchmark reads in the final words of a reply in text.

    None where there are none: the reply is still thinking, or it was cut and its verdict does not
    hang on its last word, so that the judge went on after what looks like one. A first token's
    alternatives (`decoding.top_logprobs`) are whole however soon the reply ends.
    """
    words = without_reasoning(reply.text)
    if words is None:
        return None
    said = benchmark.verdict(question, replace(reply, text=words))
    if question.decoding.top_logprobs or not was_cut(reply):
        return said
    if isinstance(said, Question):
        return said if words.strip() else None
    shorter = benchmark.verdict(question, replace(reply, text=_but_the_last_word(words)))
    return None if shorter == said else said


def _but_the_last_word(text: str) -> str:
    end = len(text)
    while end and not text[end - 1].isalnum():
        end -= 1
    while end and text[end - 1].isalnum():
        end -= 1
    return text[:end]
