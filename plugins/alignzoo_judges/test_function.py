"""A user's own scoring function, right and wrong."""

from __future__ import annotations

import pytest

from alignzoo import Answer, PluginError, PromptSample, RecipeError, Response
from alignzoo.recipe.options import build_options
from alignzoo.testing import check_judge
from alignzoo_judges import Function

CHAT = ({"role": "system", "content": "s"}, {"role": "user", "content": "u"})


def judge(tmp_path, text, name="score"):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return Function(path=f"{path}:{name}")


def values(judge, *texts, prompt="p"):
    answers = [Answer(PromptSample(prompt), Response(text), 1) for text in texts]
    return [score.value for score in judge.score(answers)]


def failure(tmp_path, text, name="score"):
    with pytest.raises(PluginError) as caught:
        values(judge(tmp_path, text, name), "a")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_function_scores_prompt_and_answer(tmp_path):
    mine = judge(tmp_path, "def score(prompt, answer):\n    return len(answer) - len(prompt)\n")
    assert values(mine, "abc", "") == [2.0, -1.0]


def test_a_chat_prompt_arrives_as_its_messages(tmp_path):
    mine = judge(tmp_path, "def score(prompt, answer):\n    return len(prompt[1]['content'])\n")
    assert values(mine, "a", prompt=CHAT) == [1.0]


def test_a_function_that_fails_is_told_the_line_in_one_sentence(tmp_path):
    text = "def score(prompt, answer):\n    x = 1\n    return x / 0\n"
    assert failure(tmp_path, text).endswith(
        "mine.py:3: in score: ZeroDivisionError: division by zero"
    )


def test_a_file_that_cannot_be_imported_is_told_the_line(tmp_path):
    assert "mine.py:2: on import: NameError" in failure(tmp_path, "x = 1\ny = z\n")
    assert "mine.py:1: on import: SyntaxError" in failure(tmp_path, "def score(:\n")


@pytest.mark.parametrize(
    ("returned", "words"), [("'good'", "'good', not a number"), ("None", "'None', not a number"),
                            ("float('nan')", "returned nan"), ("1e999", "returned inf")]
)  # fmt: skip
def test_a_function_that_returns_no_finite_number_is_told(tmp_path, returned, words):
    assert words in failure(tmp_path, f"def score(prompt, answer):\n    return {returned}\n")


def test_a_misspelt_function_is_told_the_nearest(tmp_path):
    text = "def score(prompt, answer):\n    return 1\n"
    assert "has no function 'scores'; did you mean 'score'?" in failure(tmp_path, text, "scores")


def test_a_missing_file_is_one_sentence(tmp_path):
    for use in (values, Function.identity):
        with pytest.raises(PluginError, match="no such file; path is"):
            use(Function(path=f"{tmp_path / 'absent.py'}:score"))


@pytest.mark.parametrize("path", ["score.py", "score", "score.txt:f", "score.py:1f", "score.py:"])
def test_a_path_of_another_form_is_refused(path):
    with pytest.raises(RecipeError, match=r"file\.py:function"):
        build_options(Function, {"path": path})


def test_a_changed_file_is_another_judge(tmp_path):
    one = judge(tmp_path, "def score(prompt, answer):\n    return 1\n")
    before, first = one.identity(), values(one, "a")
    other = judge(tmp_path, "def score(prompt, answer):\n    return 2\n")
    assert one == other
    assert (first, values(other, "a")) == ([1.0], [2.0])
    assert before != other.identity()
    assert before["function"] == "score"


def test_dataclasses_in_the_file_work(tmp_path):
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Rule:\n    weight: float = 2\n"
        "def score(prompt, answer):\n    return Rule().weight\n"
    )
    assert values(judge(tmp_path, text), "a") == [2.0]


def test_a_function_keeps_the_contract_of_judges(tmp_path):
    mine = judge(tmp_path, "def score(prompt, answer):\n    return len(answer)\n")
    check_judge(mine, [PromptSample("Hello?"), PromptSample("Count.")])
