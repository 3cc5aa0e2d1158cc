"""KTO on two examples, worked out by hand."""

import math

import pytest
import torch

from alignzoo import DataError, LabelledBatch
from alignzoo.testing import check_algorithm
from alignzoo_kto import KTO

# Rows: good, bad, then both prompts with the other's answer; one prompt and one answer token each.
SEEN = torch.ones(4, 2, dtype=torch.bool)
BATCH = LabelledBatch(
    SEEN.long(), SEEN, SEEN & (torch.arange(2) > 0), desirable=torch.tensor([1.0, 0.0])
)
REFERENCE = torch.tensor([[-2.0, 0.0], [-2.0, 0.0], [-5.0, 0.0], [-5.0, 0.0]])


class Alone:
    """The only rank."""

    def sum(self, x):
        return x

    def mean(self, x, mask):
        return x[mask].mean()


def log_probs(good, bad, *mismatched):
    return torch.tensor([[x, 0.0] for x in (good, bad, *mismatched)])


def evaluated(method, start):
    given = {"start": start, "reference": REFERENCE}
    prepared = method.prepare(BATCH, given, Alone())
    return method.loss(BATCH, {**given, **prepared, "policy": start}, {})


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_kto_of_two_examples_by_hand():
    # D = (1, -.5); mismatched ratios (2, 0), so z0 = 1
    loss = evaluated(KTO(beta=2.0), log_probs(-1.0, -2.5, -3.0, -5.0))
    expected = [1 - sigmoid(2.0 * (1 - 1)), 1 - sigmoid(2.0 * (1 + 0.5))]
    assert loss.terms.value.tolist() == pytest.approx(expected)
    assert loss.metrics["kl_k1/mismatched"].value.tolist() == [1.0, 1.0]


def test_the_estimate_is_clamped_after_the_mean():
    # mismatched ratios (3, -4): clamped one by one they would give 1.5
    loss = evaluated(KTO(beta=2.0), log_probs(-1.0, -2.5, -2.0, -9.0))
    assert loss.metrics["kl_k1/mismatched"].value.tolist() == [0.0, 0.0]
    assert loss.terms.value.tolist() == pytest.approx([1 - sigmoid(2.0), 1 - sigmoid(1.0)])


def test_examples_are_weighted_by_their_label_and_worth_half_at_the_start():
    loss = evaluated(KTO(desirable_weight=1.5, undesirable_weight=0.5), REFERENCE)
    assert loss.terms.value.tolist() == pytest.approx([0.75, 0.25])
    assert loss.terms.weight is None, "the mean is over examples, not over weights"


def test_rewards_are_logged_by_label_without_the_estimate():
    logged = evaluated(KTO(beta=0.1), log_probs(-1.0, -2.5, -3.0, -5.0)).metrics
    mean = {name: (m.value * m.weight).sum().item() for name, m in logged.items() if "rew" in name}
    assert mean == pytest.approx({"rewards/desirable": 0.1, "rewards/undesirable": -0.05})


def test_one_example_is_too_few_to_estimate_from():
    one = BATCH.take(torch.tensor([0]))
    start = {"start": REFERENCE[[0, 2]], "reference": REFERENCE[[0, 2]]}
    with pytest.raises(DataError, match="batch_size"):
        KTO().prepare(one, start, Alone())


def test_mismatched_rows_are_read_without_gradient():
    assert KTO().signals()["policy"].mask(BATCH).any(-1).tolist() == [True, True, False, False]


@pytest.mark.parametrize("method", [KTO(), KTO(beta=0.5, desirable_weight=2.0)], ids=repr)
def test_the_contract_is_kept(method):
    check_algorithm(method)
