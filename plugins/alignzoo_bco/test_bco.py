"""BCO on three examples, worked out by hand, and over a few steps."""

import math

import pytest
import torch

from alignzoo import LabelledBatch
from alignzoo.testing import check_algorithm
from alignzoo_bco import BCO

# Three examples of one token each, then three mismatched rows that must not matter.
SEEN = torch.ones(6, 2, dtype=torch.bool)
DESIRABLE = torch.tensor([1.0, 0.0, 1.0])
BATCH = LabelledBatch(SEEN.long(), SEEN, SEEN & (torch.arange(2) > 0), DESIRABLE)
RATIO = [2.0, -1.0, 4.0, 99.0, 99.0, 99.0]


def loss(state, beta=0.5):
    ratio = torch.tensor([[x, 0.0] for x in RATIO], dtype=torch.float64)
    reference = torch.zeros_like(ratio) - 7
    signals = {"policy": ratio + reference, "reference": reference}
    return BCO(beta=beta).loss(BATCH, signals, state)


def state_of(good, bad):
    new = BCO().init_state()
    return {**new, "mean/good": new["mean/good"] + good, "mean/bad": new["mean/bad"] + bad}


def softplus(x):
    return math.log(1 + math.exp(x))


def test_the_loss_by_hand():
    found = loss(state_of(1.0, -0.5))  # delta 1/4; rewards 1, -1/2 and 2
    expected = [softplus(-(1 - 0.25)), softplus(-0.5 - 0.25), softplus(-(2 - 0.25))]
    assert found.terms.value.tolist() == pytest.approx(expected)
    assert found.metrics["delta"].value.tolist() == [0.25] * 3


def test_with_nothing_seen_the_shift_is_zero():
    assert loss(BCO().init_state()).metrics["delta"].value.tolist() == [0.0] * 3


def test_logged_rewards_are_those_of_each_kind():
    found = loss(BCO().init_state()).metrics
    mean = {n: ((x.value * x.weight).sum() / x.weight.sum()).item() for n, x in found.items()
            if x.weight is not None}  # fmt: skip
    assert mean == {"rewards/desirable": 1.5, "rewards/undesirable": -0.5}


def test_the_shift_is_the_middle_between_the_means_of_all_steps_before():
    method, state = BCO(), BCO().init_state()
    steps = [(1.0, 0.0), (3.0, None), (2.0, -1.0)]  # the second batch has no undesirable example
    for good, bad in steps:
        seen = {"rewards/desirable": good, "rewards/undesirable": bad}
        state = method.next_state(state, {n: x for n, x in seen.items() if x is not None})
    assert state["mean/good"].item() == pytest.approx(2.0)
    assert state["mean/bad"].item() == pytest.approx(-0.5)
    assert loss(state).metrics["delta"].value[0].item() == pytest.approx(0.75)


@pytest.mark.parametrize("delta", [0.0, 0.4])
def test_losses_on_random_inputs_equal_an_independent_transcription(delta):
    torch.manual_seed(3)
    rows, columns, beta = 8, 6, 0.3
    seen = torch.arange(columns) < torch.tensor([6, 3, 5, 2] * 2)[:, None]
    label = torch.tensor([1.0, 0.0, 0.0, 1.0])
    batch = LabelledBatch(seen.long(), seen, seen & (torch.arange(columns) > 0), label)
    policy, reference = (-torch.rand(rows, columns, dtype=torch.float64) for _ in range(2))
    got = BCO(beta=beta).loss(
        batch, {"policy": policy, "reference": reference}, state_of(delta, delta)
    )
    for i, good in enumerate(label.tolist()):
        n = int(batch.mask[i].sum())
        r = beta * (policy[i, :n].sum() - reference[i, :n].sum()).item()
        probability = 1 / (1 + math.exp(-(r - delta)))
        expected = -math.log(probability if good else 1 - probability)
        assert got.terms.value[i].item() == pytest.approx(expected, rel=1e-12)


def test_the_contract_is_kept():
    check_algorithm(BCO())
