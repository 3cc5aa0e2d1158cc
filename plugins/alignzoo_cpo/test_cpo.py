"""CPO on numbers that a pocket calculator can follow."""

import math

import pytest
import torch

from alignzoo import PairBatch
from alignzoo.testing import check_algorithm
from alignzoo_cpo import CPO, CPOSimPO

# One pair; columns: prompt, two answer tokens. Position p holds the log-prob of token p + 1.
SEEN = torch.tensor([[True, True, True], [True, True, False]])  # chosen, rejected
BATCH = PairBatch(SEEN.long(), SEEN, SEEN & (torch.arange(3) > 0))
SIGNALS = {"policy": torch.tensor([[-1.0, -2.0, 0.0], [-4.0, 0.0, 0.0]])}


def terms(method):
    return method.loss(BATCH, SIGNALS, {}).terms


def test_cpo_of_a_pair_by_hand():
    found = terms(CPO(beta=0.5, nll_weight=0.25))
    assert found["preference"].value.item() == pytest.approx(
        math.log(1 + math.exp(-0.5 * (-3 + 4)))
    )
    assert found["nll"].scale == 0.25


def test_the_chosen_response_alone_is_imitated():
    nll = terms(CPO())["nll"]
    assert (nll.value * nll.weights).sum().item() == 3.0
    assert nll.weights.sum().item() == 2


def test_cpo_simpo_averages_over_the_length_and_asks_for_a_margin():
    found = terms(CPOSimPO(beta=2.0, gamma_ratio=0.5))
    expected = math.log(1 + math.exp(-2.0 * (-1.5 + 4 - 0.5)))
    assert found["preference"].value.item() == pytest.approx(expected)
    assert terms(CPOSimPO())["nll"].scale == 1.0


def test_logged_rewards_are_scaled_scores():
    logged = {m: m.loss(BATCH, SIGNALS, {}).metrics for m in (CPO(beta=0.1), CPOSimPO(beta=2.0))}
    chosen = [metrics["rewards/chosen"].value.item() for metrics in logged.values()]
    assert chosen == pytest.approx([-0.3, -3.0])


@pytest.mark.parametrize("method", [CPO(), CPO(nll_weight=0.0), CPOSimPO()], ids=repr)
def test_the_contract_is_kept(method):
    check_algorithm(method)
