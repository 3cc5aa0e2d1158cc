"""DPO, IPO and hinge DPO on numbers that a pocket calculator can follow."""

import math

import pytest
import torch

from alignzoo import Follow, PairBatch
from alignzoo.testing import check_algorithm
from alignzoo_dpo import DPO, IPO, TRDPO, HingeDPO

# One pair; columns: prompt, two answer tokens. Position p holds the log-prob of token p + 1.
ROWS = torch.tensor([[True, True, True], [True, True, False]])  # chosen, rejected
BATCH = PairBatch(torch.ones(2, 3, dtype=torch.int64), ROWS, ROWS & (torch.arange(3) > 0))
SIGNALS = {
    "policy": torch.tensor([[-1.0, -2.0, 0.0], [-4.0, 0.0, 0.0]]),
    "reference": torch.tensor([[-2.0, -2.5, 0.0], [-3.5, 0.0, 0.0]]),
}
D = (-3.0 + 4.5) - (-4.0 + 3.5)  # 2: the chosen gained 1.5 nats, the rejected lost .5


def value(method):
    return method.loss(BATCH, SIGNALS, {}).terms.value.item()


def test_dpo_of_a_pair_by_hand():
    assert D == 2.0
    assert value(DPO(beta=0.5)) == pytest.approx(math.log(1 + math.exp(-1.0)))  # .313262


def test_label_smoothing_mixes_in_the_opposite_label():
    right, wrong = math.log(1 + math.exp(-1.0)), math.log(1 + math.exp(1.0))
    smoothed = DPO(beta=0.5, label_smoothing=0.1)
    assert value(smoothed) == pytest.approx(0.9 * right + 0.1 * wrong)


def test_ipo_of_a_pair_by_hand():
    assert value(IPO(beta=0.5)) == pytest.approx((2.0 - 1.0) ** 2)
    assert value(IPO(beta=0.1)) == pytest.approx((2.0 - 5.0) ** 2)


def test_hinge_dpo_of_a_pair_by_hand():
    assert value(HingeDPO(beta=0.1)) == pytest.approx(1 - 0.1 * 2.0)
    assert value(HingeDPO(beta=0.75)) == 0.0


def test_tr_dpo_is_dpo_against_the_reference_of_the_moment():
    """alpha .5 of the policy's weights: here its log-probs are linear in them, so D is halved."""
    halfway = (SIGNALS["policy"] + SIGNALS["reference"]) / 2
    moved = TRDPO(beta=0.5, alpha=0.5).loss(BATCH, {**SIGNALS, "reference": halfway}, {})
    assert moved.terms.value.item() == pytest.approx(math.log(1 + math.exp(-0.5 * D / 2)))
    assert value(TRDPO(beta=0.5)) == value(DPO(beta=0.5))
    assert TRDPO(alpha=0.5, tau=3).moving() == {"reference": Follow("policy", 0.5, 3)}


def test_logged_rewards_are_beta_times_the_log_ratios_beside_the_log_probabilities():
    logged = DPO(beta=0.1).loss(BATCH, SIGNALS, {}).metrics
    got = {name: metric.value.item() for name, metric in logged.items()}
    assert got == pytest.approx(
        {
            "rewards/chosen": 0.15,
            "rewards/rejected": -0.05,
            "rewards/margin": 0.2,
            "rewards/accuracy": 1.0,
            "logps/chosen": -3.0,
            "logps/rejected": -4.0,
        }
    )


@pytest.mark.parametrize(
    "method", [DPO(), DPO(label_smoothing=0.2), IPO(beta=1.0), HingeDPO()], ids=repr
)
def test_the_contract_is_kept(method):
    check_algorithm(method)
