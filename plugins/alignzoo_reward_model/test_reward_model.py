"""The reward model on numbers that a pocket calculator can follow."""

import math

import pytest
import torch

from alignzoo import Item
from alignzoo.testing import check_algorithm, toy_items
from alignzoo_reward_model import RewardModel
from alignzoo_reward_model.algorithm import GradedPairBatch, last_token

SEEN = torch.tensor([[True, True, True], [True, True, False]])  # chosen, rejected
SIGNALS = {"reward": torch.tensor([[0.0, 0.0, 1.5], [0.0, -0.5, 0.0]])}


def batch(margin=0.0, seen=SEEN):
    return GradedPairBatch(seen.long(), seen, seen, torch.tensor([margin]))


def value(margin):
    return RewardModel().loss(batch(margin), SIGNALS, {}).terms.value.item()


def test_a_pair_by_hand():
    assert value(0.0) == pytest.approx(math.log(1 + math.exp(-2.0)))


def test_a_margin_has_to_be_exceeded():
    assert value(1.25) == pytest.approx(math.log(1 + math.exp(-0.75)))


def test_a_hopeless_pair_gives_a_finite_loss():
    rewards = {"reward": torch.tensor([[0.0, 0.0, -300.0], [0.0, 300.0, 0.0]])}
    assert RewardModel().loss(batch(), rewards, {}).terms.value.item() == 600.0


def test_the_last_token_is_found_on_either_side_of_the_padding():
    assert last_token(batch()).tolist() == [[False, False, True], [False, True, False]]
    left = torch.tensor([[False, True, True], [True, True, True]])
    assert last_token(batch(seen=left)).tolist() == [[False, False, True]] * 2


def test_pairs_carry_a_margin_if_the_data_have_one():
    first, second = toy_items(GradedPairBatch, 2)
    strong = Item(second.rows, {"margin": 0.75, "other": 3.0})
    assert GradedPairBatch.collate([first, strong], 0).margin.tolist() == [0.0, 0.75]


def test_rewards_are_logged_without_the_margin_and_a_tie_is_wrong():
    tied = {"reward": torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])}
    logged = RewardModel().loss(batch(2.0), tied, {}).metrics
    assert logged["rewards/accuracy"].value.item() == 0.0
    assert logged["rewards/margin"].value.item() == 0.0


def test_the_contract_is_kept():
    check_algorithm(RewardModel())
