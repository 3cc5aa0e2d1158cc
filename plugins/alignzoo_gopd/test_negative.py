"""A fixed negative advantage on three words, where everything can be worked out by hand."""

import math

import pytest
import torch

from alignzoo.testing import check_algorithm
from alignzoo_gopd import NegativeAdvantage

# Two positions: the policy says 5/8 : 2/8 : 1/8, then nearly always the first word.
LOGITS = torch.tensor([[5.0, 2.0, 1.0], [98.0, 1.0, 1.0]], dtype=torch.float64).log()
LABELS = torch.tensor([1, 0])


def rows(below):
    logits = LOGITS.clone().requires_grad_()
    found = NegativeAdvantage(below=below).rows({"policy": logits}, LABELS)
    return logits, found


def test_what_is_below_the_threshold_is_the_loss_by_hand():
    _, found = rows(below=0.2)  # the word with 1/8, then both with 1/100
    assert found["mass"].tolist() == pytest.approx([1 / 8, 2 / 100])
    assert found["sampled"].tolist() == [0, 0]
    entropy = -(5 * math.log(5 / 8) + 2 * math.log(2 / 8) + math.log(1 / 8)) / 8
    assert found["entropy"][0].item() == pytest.approx(entropy)
    _, wider = rows(below=0.3)
    assert wider["mass"].tolist() == pytest.approx([3 / 8, 2 / 100])
    assert wider["sampled"].tolist() == [1, 0]


def test_the_gradient_is_the_average_of_policy_gradients_over_the_sampled_word():
    logits, found = rows(below=0.3)
    found["mass"].sum().backward()
    p = [5 / 8, 2 / 8, 1 / 8]
    average = [0.0, 0.0, 0.0]
    for word, chance in enumerate(p):
        if chance >= 0.3:
            continue  # no advantage
        for k in range(3):  # of -A log pi(word) with A = -1: the word falls, the others rise
            average[k] += chance * ((k == word) - p[k])
    assert logits.grad[0].tolist() == pytest.approx(average)


def test_a_policy_that_holds_everything_improbable_or_nothing_is_at_rest():
    for below in (1.0, 1e-3):
        logits, found = rows(below)
        found["mass"].sum().backward()
        assert logits.grad.abs().max().item() < 1e-15


@pytest.mark.parametrize("method", [NegativeAdvantage(), NegativeAdvantage(below=0.5)], ids=str)
def test_the_contract_is_kept(method):
    check_algorithm(method)
