"""The pointwise benchmark: questions, grades, columns."""

import pytest

from alignzoo import Answer, PromptSample, Reply, Response, Verdict
from alignzoo.testing import check_benchmark
from alignzoo_pairwise.pointwise import Pointwise, read_grade


def answer(text, prompt="What is it?"):
    return Answer(PromptSample(prompt), Response(text), len(text.split()))


def test_it_keeps_the_contract():
    check_benchmark(Pointwise())


def test_every_answer_is_asked_about_once_and_braces_in_it_stay():
    (one,) = Pointwise(max_tokens=9).questions([answer("{prompt} is it")], None)
    text = one.messages[0]["content"]
    assert "<request>\nWhat is it?\n</request>" in text
    assert "<answer>\n{prompt} is it\n</answer>" in text
    assert (one.index, one.decoding.max_tokens) == (0, 9)


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("Fine.\nGrade: [[7]]", 7.0),
        ("Grade: [[3]]\nOn second thought:\n**Final grade: [[10]]**", 10.0),
        ("Rating: 8/10", 8.0),
        ("My score is 6.5 out of 10.", 6.5),
        ("Grade: [[11]]", None),
        ("Grade: [[0]]", None),
        ("Grade: -3", None),
        ("Grade: .5", None),
        ("Grade: <7", None),
        ("Grade: 7%", None),
        ("**Grade** = `7`", 7.0),
        ("Grade is: 7.5", 7.5),
        ("The grade: [[7]] would be too much.", None),
        ("I would grade this highly", None),
        ('"Grade: 7"', None),
        ("", None),
    ],
)
def test_a_grade_is_a_line_of_its_own_on_the_scale(reply, grade):
    assert read_grade(reply) == grade


def test_a_reply_that_was_cut_has_the_grade_in_brackets_alone():
    assert read_grade("Grade: 1", cut=True) is None
    assert read_grade("Grade: [[1]]", cut=True) == 1.0


def test_what_nobody_graded_has_no_value(tmp_path):
    benchmark = Pointwise()
    answers = [answer("a b"), answer("c")]
    columns = benchmark.columns(answers, None, {"0": Verdict(7.0)})
    assert columns["grade"].values == (7.0, None)
    assert columns["length"].values == (2.0, 1.0)
    (question, _) = benchmark.questions(answers, None)
    assert benchmark.verdict(question, Reply("Grade: [[4]]")) == Verdict(4.0, label="4")
    assert benchmark.verdict(question, Reply("Grade: 4", finish="length")) is None
