"""The one reader of replies: reasoning, cuts, and what is left for a benchmark's parser."""

import re
import time
from dataclasses import dataclass

import pytest

from alignzoo import (
    Answer,
    Decoding,
    JudgedBenchmark,
    PromptSample,
    Question,
    Reply,
    Response,
    Verdict,
    holds_reasoning,
    read_verdict,
    without_reasoning,
)

LABEL = re.compile(r"\[\[(\d+)\]\]")
ANSWER = Answer(PromptSample("p"), Response("a"), 1)


@dataclass(frozen=True)
class First(JudgedBenchmark):
    """Reads the first number in brackets, wherever it stands; "go on" is followed up."""

    name = "first"

    def verdict(self, question, reply):
        if reply.top_logprobs:
            return Verdict(reply.top_logprobs["yes"])
        if "go on" in reply.text:
            return Question("0+", 0, (ANSWER,), ({"role": "user", "content": reply.text},))
        found = LABEL.search(reply.text)
        return Verdict(float(found[1])) if found else None


def read(text, finish="stop", top=0, **more):
    asked = ({"role": "user", "content": "grade"},)
    question = Question("0", 0, (ANSWER,), asked, Decoding(top_logprobs=top))
    return read_verdict(First(), question, Reply(text, finish=finish, **more))


def value(text, finish="stop", **more):
    said = read(text, finish, **more)
    return said and said.value


@pytest.mark.parametrize(
    ("opens", "closes"),
    [
        ("<think>", "</think>"),
        ("<THINK>", "</Think>"),
        ("<thinking>\n", "\n</thinking>"),
        ("<thought>", "</thought>"),
        ("<reasoning>", "</reasoning>"),
        ("<seed:think>", "</seed:think>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("analysisWe read. ", "assistantfinal"),
    ],
)
def test_a_draft_inside_reasoning_is_no_verdict_whatever_marks_it(opens, closes):
    draft = f"{opens}At first [[2]], but it is complete."
    assert value(f"{draft}{closes}It is complete. Rating: [[9]]") == 9
    assert value(f"{draft}{closes}I cannot say.") is None
    assert value(draft) is None, "it stops inside its thoughts"
    assert holds_reasoning(draft)


def test_an_end_without_a_beginning_closes_what_the_prompt_had_opened():
    assert value("maybe [[2]]</think>[[9]]") == 9
    assert value("maybe [[2]]</think>") is None


def test_a_second_thought_that_is_not_over_takes_the_verdict_back():
    assert value("<think>so</think>[[9]] <think>or rather") is None
    assert value("<think>a</think><think>[[1]]</think>[[9]]") == 9


def test_a_verdict_before_its_reasons_counts():
    assert value("<score>[[7]]</score><reasoning>Not [[10]].</reasoning>") == 7


def test_a_mark_in_quotation_marks_is_spoken_of():
    for text in ("It shows a `<think>` block. [[4]]", 'It has "<think>" in it. [[4]]'):
        assert value(text) == 4 and not holds_reasoning(text)


@pytest.mark.parametrize("text", ["[[3]]\n", " as is ", "", "a < b > c", "x\r\n\ty  "])
def test_a_reply_without_reasoning_comes_as_it_is(text):
    assert without_reasoning(text) == text


def test_harmonys_last_token_is_no_part_of_the_words():
    text = "<|channel|>final<|message|>Verdict: FIRST<|return|>"
    assert without_reasoning(text) == "Verdict: FIRST"


@pytest.mark.parametrize("finish", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_a_cut_reply_has_only_the_verdict_that_it_ends_with(finish):
    assert value("The scale goes up to [[10]]. Now, looking at", finish) is None
    assert value("The scale goes up to [[10]]\nNow", finish) is None
    assert value("评分标准是[[10]]。现在来看", finish) is None
    assert value("Complete. Rating: [[9]]", finish) == 9
    assert value("Complete. **Rating: [[9]]**\n", finish) == 9
    assert value("[[2]] is too low; [[9]]", finish) is None, "the parser reads what comes before"
    assert value("", finish) is None


@pytest.mark.parametrize("finish", ["stop", None, "eos", "content_filter"])
def test_a_reply_that_came_to_its_end_is_read_by_the_benchmarks_own_rule(finish):
    assert value("The scale goes up to [[10]]. Now, looking at", finish) == 10


def test_first_tokens_are_whole_however_soon_the_reply_ends():
    assert value("yes", "length", top=5, top_logprobs={"yes": 0.5}) == 0.5
    assert value("<think>", "length", top=5, top_logprobs={"yes": 0.5}) is None


def test_a_cut_reply_may_be_followed_up_unless_it_said_nothing():
    assert isinstance(read("Well, go on", "length"), Question)
    assert read("<think>go on", "length") is None
    assert read("<think>x</think>go on").messages[0]["content"] == "go on", "without its thoughts"


def test_a_reply_of_any_length_is_read_in_no_time():
    began = time.monotonic()
    for text in (
        "<think>" * 20_000,
        "x" * 200_000,
        "(" * 200_000,
        "<" * 200_000,
        "`<think>" * 9999,
    ):
        value(text, "length")
    assert time.monotonic() - began < 2
