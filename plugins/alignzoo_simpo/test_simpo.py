"""SimPO on numbers that a pocket calculator can follow."""

import math

import pytest
import torch

from alignzoo import PairBatch
from alignzoo.testing import check_algorithm
from alignzoo_simpo import HingeSimPO, SimPO

# One pair; columns: prompt, two answer tokens. Position p holds the log-prob of token p + 1.
SEEN = torch.tensor([[True, True, True], [True, True, False]])  # chosen, rejected
BATCH = PairBatch(SEEN.long(), SEEN, SEEN & (torch.arange(3) > 0))
SIGNALS = {"policy": torch.tensor([[-1.0, -2.0, 0.0], [-4.0, 0.0, 0.0]])}
GAP = -1.5 + 4.0  # of mean log-probabilities


def value(method):
    return method.loss(BATCH, SIGNALS, {}).terms.value.item()


def test_simpo_of_a_pair_by_hand():
    u = GAP - 0.5
    assert u == 2.0
    assert value(SimPO(beta=0.5, gamma_ratio=0.5)) == pytest.approx(math.log(1 + math.exp(-1.0)))


def test_the_margin_is_given_as_gamma_over_beta():
    gamma = 5.0
    expected = math.log(1 + math.exp(-(2.0 * GAP - gamma)))
    assert value(SimPO(beta=2.0, gamma_ratio=gamma / 2.0)) == pytest.approx(expected)


def test_label_smoothing_mixes_in_the_opposite_label():
    right, wrong = math.log(1 + math.exp(-1.0)), math.log(1 + math.exp(1.0))
    smoothed = SimPO(beta=0.5, label_smoothing=0.1)
    assert value(smoothed) == pytest.approx(0.9 * right + 0.1 * wrong)


def test_the_hinge_form_is_zero_beyond_its_margin():
    assert value(HingeSimPO(beta=0.25, gamma_ratio=0.5)) == pytest.approx(1 - 0.25 * 2.0)
    assert value(HingeSimPO(beta=0.75, gamma_ratio=0.5)) == 0.0


def test_logged_rewards_leave_the_margin_out():
    logged = SimPO(beta=2.0).loss(BATCH, SIGNALS, {}).metrics
    assert logged["rewards/chosen"].value.item() == pytest.approx(-3.0)
    assert logged["rewards/rejected"].value.item() == pytest.approx(-8.0)


@pytest.mark.parametrize(
    "method", [SimPO(), SimPO(label_smoothing=0.2), HingeSimPO(beta=0.3)], ids=repr
)
def test_the_contract_is_kept(method):
    check_algorithm(method)
