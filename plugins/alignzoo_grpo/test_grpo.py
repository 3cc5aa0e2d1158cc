"""GRPO on two groups of answers, worked out by hand."""

import math

import pytest
import torch

from alignzoo import RolloutBatch
from alignzoo.testing import check_algorithm
from alignzoo_grpo import GRPO

REWARD = torch.tensor([1.0, 10.0, 2.0, 10.0, 6.0])
GROUP = torch.tensor([7.0, 4.0, 7.0, 4.0, 7.0])  # mean 3 and deviation sqrt 7; all equal


def test_rewards_are_normalised_within_the_answers_to_a_prompt():
    got = GRPO().advantages(REWARD, GROUP)
    deviation = math.sqrt((4 + 1 + 9) / 2) + 1e-4
    expected = torch.tensor([-2.0, 0.0, -1.0, 0.0, 3.0]) / deviation
    torch.testing.assert_close(got, expected)


def test_without_scale_only_the_mean_is_subtracted():
    got = GRPO(scale=False).advantages(REWARD, GROUP)
    torch.testing.assert_close(got, torch.tensor([-2.0, 0.0, -1.0, 0.0, 3.0]))


@pytest.mark.parametrize("scale", [True, False])
def test_equal_rewards_have_advantage_exactly_zero(scale):
    reward = torch.tensor([1000.1, 1000.1, 1000.1, 0.1, 0.1, 0.1, 0.1, 1e30])
    group = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    assert GRPO(scale=scale).advantages(reward, group).tolist() == [0.0] * 8


def test_a_small_difference_between_large_rewards_is_kept():
    reward = torch.tensor([1e6, 1e6 + 0.25, 1e6 + 0.5])
    got = GRPO(scale=False).advantages(reward, torch.zeros(3))
    assert got.tolist() == [-0.25, 0.0, 0.25]


def one_answer():
    seen, one = torch.ones(1, 3, dtype=torch.bool), torch.ones(1)
    return RolloutBatch(seen.long(), seen, seen & (torch.arange(3) > 0), one, one, one)


def test_both_terms_by_hand():
    old = torch.tensor([[-1.0, -2.0, 0.0]])
    given = {
        "old": old,
        "policy": old + torch.tensor([[1.5, 0.5, 1.0]]).log(),
        "reference": old + torch.tensor([[0.75, 0.5, 1.0]]).log(),
        "advantage": torch.tensor([[2.0, 2.0, 0.0]]),
    }
    loss = GRPO(kl_coef=0.1).loss(one_answer(), given, {})
    # the first ratio is clipped to 1.2, the second is worse unclipped: -(1.2 * 2 + .5 * 2) / 2
    assert loss.terms["policy"].value.item() == pytest.approx(-1.7)
    # d = log 2 and 0: (1/2 - 1 + log 2) / 2
    assert loss.terms["kl"].value.item() == pytest.approx((math.log(2) - 0.5) / 2)
    assert loss.terms["kl"].scale == 0.1
    clipped = loss.metrics["clip_fraction"]
    assert (clipped.value * clipped.weight).sum().item() == 1


def test_every_token_of_an_answer_gets_its_advantage():
    seen = torch.tensor([[True, True, True], [True, True, False]])
    reward = torch.tensor([3.0, 1.0])
    batch = RolloutBatch(
        seen.long(), seen, seen & (torch.arange(3) > 0), reward, reward, 0 * reward
    )
    ready = GRPO(scale=False).prepare(batch, {"old": torch.zeros(2, 3)}, None)
    expected = torch.tensor([[1.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    torch.testing.assert_close(ready["advantage"], expected)


def two_answers():
    """Answers of one and two tokens."""
    seen = torch.tensor([[True, True, False], [True, True, True]])
    one = torch.ones(2)
    return RolloutBatch(seen.long(), seen, seen & (torch.arange(3) > 0), one, one, one)


def test_dr_grpo_sums_over_tokens_and_divides_by_a_constant():
    nothing = torch.zeros(2, 3)
    given = {"old": nothing, "policy": nothing, "reference": nothing - math.log(2)}
    given["advantage"] = torch.tensor([[3.0, 0.0, 0.0], [-1.0, -1.0, 0.0]])
    method = GRPO(scale=False, reduction="sequence_sum", constant=8, kl_coef=0.5)
    terms = method.loss(two_answers(), given, {}).terms
    # every ratio is 1: minus the sum of advantages, 3 and -2
    assert terms["policy"].value.tolist() == [-3.0, 2.0]
    assert terms["policy"].scale == 1 / 8
    # d = log 2 for each token: k3 = 1/2 - 1 + log 2, once and twice
    k3 = math.log(2) - 0.5
    assert terms["kl"].value.tolist() == pytest.approx([k3, 2 * k3])
    assert terms["kl"].scale == 0.5 / 8


def test_a_constant_without_the_sum_is_refused():
    with pytest.raises(ValueError, match="set reduction: sequence_sum"):
        GRPO(constant=64)


DR_GRPO = GRPO(scale=False, reduction="sequence_sum", constant=6)


@pytest.mark.parametrize(
    "method", [GRPO(), GRPO(reduction="token_mean", scale=False), DR_GRPO], ids=str
)
def test_the_contract_is_kept(method):
    check_algorithm(method)
