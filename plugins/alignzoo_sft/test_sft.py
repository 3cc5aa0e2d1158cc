"""SFT on numbers that a pocket calculator can follow."""

import pytest
import torch

from alignzoo import TextBatch
from alignzoo.testing import check_algorithm
from alignzoo_sft import SFT

# Two rows; columns: prompt, answer tokens. Position p holds the log-prob of token p + 1.
ROWS = torch.tensor([[True, True, True, True], [True, True, False, False]])
BATCH = TextBatch(torch.ones(2, 4, dtype=torch.int64), ROWS, ROWS & (torch.arange(4) > 0))
SIGNALS = {"policy": torch.tensor([[-1.0, -2.0, -3.0, 0.0], [-8.0, 0.0, 0.0, 0.0]])}


def value(method):
    term = method.loss(BATCH, SIGNALS, {}).terms
    return ((term.value * term.weights).sum() / term.weights.sum()).item()


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("token_mean", 14 / 4), ("sequence_mean", (2 + 8) / 2), ("sequence_sum", (6 + 8) / 2)],
)
def test_the_loss_of_two_answers_by_hand(reduction, expected):
    assert value(SFT(reduction=reduction)) == expected


def test_the_logged_likelihood_is_per_token_whatever_the_reduction():
    nll = SFT(reduction="sequence_sum").loss(BATCH, SIGNALS, {}).metrics["nll"]
    assert ((nll.value * nll.weight).sum() / nll.weight.sum()).item() == 14 / 4


def test_the_contract_is_kept():
    check_algorithm(SFT())
