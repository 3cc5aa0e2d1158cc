"""ORPO on numbers that a pocket calculator can follow."""

import math

import pytest
import torch

from alignzoo import PairBatch
from alignzoo.testing import check_algorithm
from alignzoo_orpo import ORPO
from alignzoo_orpo.algorithm import log_odds

# One pair; columns: two prompt tokens, then answers. Position p holds the log-prob of token p + 1.
SEEN = torch.tensor([[True, True, True, True], [True, True, True, False]])  # chosen, rejected
BATCH = PairBatch(SEEN.long(), SEEN, SEEN & (torch.arange(4) > 1))
HALF, THIRD = math.log(1 / 2), math.log(1 / 3)
SIGNALS = {"policy": torch.tensor([[-7.0, HALF, HALF, 0.0], [0.0, THIRD, 0.0, 0.0]])}


def test_both_terms_by_hand():
    loss = ORPO(beta=0.25).loss(BATCH, SIGNALS, {})
    odds, nll = loss.terms["odds_ratio"], loss.terms["nll"]
    # odds 1 and 1/2, so their ratio is 2 and its sigmoid 2/3
    assert odds.value.item() == pytest.approx(-math.log(2 / 3))
    assert odds.scale == 0.25
    assert loss.metrics["log_odds_ratio"].item() == pytest.approx(math.log(2))
    # the chosen prompt's second token, and the two tokens of the answer
    assert (nll.value * nll.weights).sum().item() == pytest.approx(7 - 2 * HALF)
    assert nll.weights.sum().item() == 3


def test_the_prompt_is_read_for_chosen_rows_alone():
    read = ORPO().signals()["policy"].mask(BATCH)
    assert read.tolist() == [[True, True, True, False], [False, True, False, False]]


def test_odds_stay_finite_at_both_ends():
    mean = torch.tensor([0.0, -1e-12, -1e-4, -200.0], requires_grad=True)
    odds = log_odds(mean)
    odds.sum().backward()
    assert torch.isfinite(odds).all()
    assert torch.isfinite(mean.grad).all()
    assert odds[3].item() == pytest.approx(-200.0)


@pytest.mark.parametrize("method", [ORPO(), ORPO(beta=1.0)], ids=repr)
def test_the_contract_is_kept(method):
    check_algorithm(method)
