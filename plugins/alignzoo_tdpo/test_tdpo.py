"""TDPO on numbers that a pocket calculator can follow."""

import math

import pytest
import torch

from alignzoo import PairBatch
from alignzoo.testing import check_algorithm
from alignzoo_tdpo import TDPO1, TDPO2

# One pair; columns: prompt, two answer tokens. Position p holds the numbers of token p + 1.
SEEN = torch.tensor([[True, True, True], [True, True, False]])  # chosen, rejected
BATCH = PairBatch(SEEN.long(), SEEN, SEEN & (torch.arange(3) > 0))
D, K_W, K_L = (-3.0 + 4.5) - (-4.0 + 3.5), 0.25, 1.5


def signals(**changes):
    given = {
        "policy": torch.tensor([[-1.0, -2.0, 0.0], [-4.0, 0.0, 0.0]]),
        "reference": torch.tensor([[-2.0, -2.5, 0.0], [-3.5, 0.0, 0.0]]),
        "kl": torch.tensor([[0.2, 0.05, 0.0], [1.5, 0.0, 0.0]]),
    }
    return given | changes


def value(method, given):
    return method.loss(BATCH, given, {}).terms.value


def test_both_forms_of_a_pair_by_hand():
    one, two = value(TDPO1(beta=0.5), signals()), value(TDPO2(beta=0.5, alpha=0.4), signals())
    assert one.item() == pytest.approx(math.log(1 + math.exp(-0.5 * (D - (K_L - K_W)))))
    assert two.item() == pytest.approx(math.log(1 + math.exp(-0.5 * (D - 0.4 * (K_L - K_W)))))


@pytest.mark.parametrize(("method", "moves"), [(TDPO1(), True), (TDPO2(), False)], ids=repr)
def test_only_the_first_form_moves_the_chosen_divergence(method, moves):
    kl = signals()["kl"].requires_grad_()
    value(method, signals(kl=kl)).sum().backward()
    assert bool(kl.grad[0].any()) == moves
    assert kl.grad[1].any()


def test_without_divergence_it_is_dpo():
    dpo = math.log(1 + math.exp(-0.5 * D))
    still = signals(kl=torch.zeros(2, 3))
    assert value(TDPO1(beta=0.5), still).item() == pytest.approx(dpo)
    assert value(TDPO2(beta=0.5, alpha=0.0), signals()).item() == pytest.approx(dpo)


def test_the_divergence_is_forward_and_its_gradient_is_the_difference_of_distributions():
    policy = torch.tensor([[0.3, -0.2, 1.0]], requires_grad=True)
    reference = torch.tensor([[0.0, 0.5, -0.5]])
    signal = TDPO1().signals()["kl"]
    k = signal.reduce({"policy": policy, "reference": reference}, torch.zeros(1).long())
    k.sum().backward()
    p, q = reference.softmax(-1), policy.softmax(-1).detach()
    assert k.item() == pytest.approx((p * (p / q).log()).sum().item())
    torch.testing.assert_close(policy.grad, q - p)


def test_official_positions_lie_one_token_late():
    aligned, official = (TDPO1(positions=p).signals()["kl"] for p in ("aligned", "official"))
    assert aligned.mask(BATCH).tolist() == [[True, True, False], [True, False, False]]
    assert official.mask(BATCH).tolist() == [[False, True, True], [False, True, False]]


def test_logged_rewards_hold_the_divergence_unweighted():
    for method in (TDPO1(beta=0.1), TDPO2(beta=0.1, alpha=0.5)):
        logged = method.loss(BATCH, signals(), {}).metrics
        assert logged["rewards/chosen"].value.item() == pytest.approx(0.1 * (1.5 + K_W))
        assert logged["rewards/rejected"].value.item() == pytest.approx(0.1 * (-0.5 + K_L))
        assert logged["kl_full/rejected"].value.item() == pytest.approx(K_L)


@pytest.mark.parametrize("method", [TDPO1(), TDPO1(positions="official"), TDPO2()], ids=repr)
def test_the_contract_is_kept(method):
    check_algorithm(method)
