"""Which pairs scored answers make, and how many."""

from collections import Counter
from random import Random

import pytest
import torch

from alignzoo import GroupBatch, Item, PairBatch, RolloutBatch, TextBatch, Tokens
from alignzoo.contract.choosing import (
    CHOOSERS,
    Pick,
    best_worst,
    bradley_terry,
    items_of,
    sigmoid,
)


def test_best_against_worst_takes_the_extremes():
    assert best_worst("abc", (1.0, 3.0, -2.0), Random(0)) == [Pick(1, 2, tie=False)]


def test_equal_scores_are_a_tie_of_two_answers_by_lot():
    noise = Random(0)
    drawn = [best_worst("abc", (1.0, 1.0, 1.0), noise)[0] for _ in range(600)]
    assert all(pick.tie and pick.chosen != pick.rejected for pick in drawn)
    found = Counter((pick.chosen, pick.rejected) for pick in drawn)
    assert len(found) == 6 and min(found.values()) > 60


def test_bradley_terry_prefers_with_the_probability_of_the_score_difference():
    noise = Random(0)
    wins = Counter(bradley_terry("ab", (1.2, 0.2), noise)[0].chosen for _ in range(20_000))
    assert wins[0] / 20_000 == pytest.approx(sigmoid(1.0), abs=0.012)  # 3.5 standard errors


def test_bradley_terry_pairs_all_neighbours_and_calls_equal_answers_a_tie():
    first, second = bradley_terry("abb", (0.0, 100.0, 0.0), Random(0))
    assert first == Pick(1, 0, tie=False)
    assert second.tie and {second.chosen, second.rejected} == {1, 2}


def test_sigmoid_survives_extreme_scores():
    assert (sigmoid(-1e9), sigmoid(0.0), sigmoid(1e9)) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize("name", CHOOSERS)
@pytest.mark.parametrize("scores", [(1.0, 1.0, 1.0, 1.0), (0.0, 1.0, 2.0, 3.0)])
def test_a_rule_makes_as_many_pairs_whatever_the_scores(name, scores):
    chooser = CHOOSERS[name]
    picks = chooser.picks("abcd", scores, Random(0))
    assert len(picks) == chooser.count(4) == items_of(PairBatch, 4, chooser)


def test_answers_are_items_of_their_own_or_one_group():
    assert [items_of(kind, 4) for kind in (TextBatch, RolloutBatch, GroupBatch.of(4))] == [4, 4, 1]


def test_a_group_keeps_its_answers_together_whatever_is_taken_of_a_batch():
    def item(first):
        rows = tuple(Tokens((first,), (first + k,) * (k + 1)) for k in range(3))
        return Item(rows, {"score": (first + 0.1, first + 0.2, first + 0.3), "ended": (1, 0, 1)})

    kind = GroupBatch.of(3)
    batch = kind.collate([item(10), item(20)], 0)
    assert kind is GroupBatch.of(3) and (batch.n_items, len(batch.ids)) == (2, 6)
    shown = [[10.1, 10.2, 10.3], [20.1, 20.2, 20.3]]
    torch.testing.assert_close(batch.by_group(batch.score), torch.tensor(shown))
    assert batch.by_group(batch.ids)[1, :, :2].tolist() == [[20, 20], [20, 21], [20, 22]]
    part = batch.take(torch.tensor([1]))
    torch.testing.assert_close(part.by_group(part.score), torch.tensor(shown[1:]))
    assert part.by_group(part.ended).tolist() == [[1, 0, 1]]
