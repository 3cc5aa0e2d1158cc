"""Comparisons of answers to one prompt become a value for each, by hand."""

import random
from dataclasses import dataclass

import pytest

from alignzoo import Answer, Judge, PluginError, PromptSample, Response, Score
from alignzoo.contract.choosing import WIN_CHOOSERS
from alignzoo.judging.comparing import preferences, ranked
from alignzoo.judging.ranking import duels, filled, win_rates


def group(*texts):
    return [Answer(PromptSample("p"), Response(text), len(text.split())) for text in texts]


def test_a_win_rate_is_the_mean_over_the_other_answers():
    own = group("a", "b", "c")
    better = {(0, 1): 1.0, (0, 2): 0.75, (1, 2): 0.5}
    assert duels(own) == [(0, 1), (0, 2), (1, 2)]
    assert win_rates(own, better) == [(1.0 + 0.75) / 2, (0.0 + 0.5) / 2, (0.25 + 0.5) / 2]


def test_answers_of_the_same_words_are_equal_and_nobody_compares_them():
    own = group("a", "a", "b")
    assert duels(own) == [(0, 2), (1, 2)]
    assert win_rates(own, {(0, 2): 1.0, (1, 2): 1.0}) == [0.75, 0.75, 0.0]


def test_a_duel_that_the_judge_left_open_counts_for_neither():
    own = group("a", "b", "c")
    assert win_rates(own, {(0, 1): None, (0, 2): 1.0, (1, 2): 0.0}) == [1.0, 0.0, 0.5]
    assert win_rates(group("a", "b"), {(0, 1): None}) == [None, None]


def test_what_has_no_value_gets_the_mean_of_its_prompt_else_of_all():
    assert filled([[1.0, None, 4.0], [None, None], [7.0]]) == [[1.0, 2.5, 4.0], [4.0, 4.0], [7.0]]
    assert filled([[1.0, 1.0, 0.25], [None, None]], 0.5)[1] == [0.5, 0.5]
    assert filled([[None], [None, None]], 0.5) is filled([[None], [None, None]]) is None
    assert filled([]) == []


@dataclass(frozen=True)
class Leaning(Judge):
    """P(first better) = .8 for the longer answer, and .1 more for the one shown first."""

    name = "leaning"
    symmetric = False

    def compare(self, pairs):
        return [0.9 if len(a.response.text) > len(b.response.text) else 0.3 for a, b in pairs]


class Letters(Judge):
    """Counts letters."""

    name = "letters"

    def score(self, answers):
        return [Score(float(len(a.response.text))) for a in answers]


def test_a_judge_that_minds_positions_is_asked_in_both_orders():
    first, second = group("long", "s")
    assert preferences(Leaning(), [(first, second)]) == [pytest.approx((0.9 + 1 - 0.3) / 2)]
    assert preferences(Leaning(), []) == []


def test_a_judge_that_scores_ranks_by_larger_smaller_and_equal():
    found = ranked(Letters(), [group("aa", "b", "cc"), group("x", "yyy")])
    assert found == [[0.75, 0.0, 0.75], [0.0, 1.0]]


def test_a_number_that_is_no_probability_names_the_judge():
    class Odd(Leaning):
        """Odd."""

        def compare(self, pairs):
            return [float("nan") for _ in pairs]

    with pytest.raises(PluginError, match="judge 'leaning': `compare` must return one number"):
        preferences(Odd(), [tuple(group("a", "b"))])


def test_pairs_drawn_by_win_rate_follow_the_judges_own_probability():
    """Of two answers with P = .9 the better one is chosen nine times of ten, not by a sigmoid."""
    picks = WIN_CHOOSERS["bradley_terry"].picks
    noise = random.Random(0)
    chosen = [picks(["a", "b"], [0.9, 0.1], noise)[0].chosen for _ in range(4000)]
    assert chosen.count(0) / 4000 == pytest.approx(0.9, abs=0.02)
    assert {picks(["a", "b"], [1.0, 0.0], noise)[0].chosen for _ in range(200)} == {0}
