"""Token-level REINFORCE on an answer of two tokens, worked out by hand."""

import pytest
import torch

from alignzoo import RolloutBatch
from alignzoo.testing import check_algorithm
from alignzoo_reinforce import Reinforce

# Columns: prompt, two answer tokens. Position p holds the numbers of token p + 1.
SEEN = torch.tensor([[True, True, True]])
ONE = torch.ones(1)
BATCH = RolloutBatch(SEEN.long(), SEEN, SEEN & (torch.arange(3) > 0), 0 * ONE, ONE, ONE)
SIGNALS = {
    "policy": torch.tensor([[-1.0, -2.0, 0.0]]),
    "teacher": torch.tensor([[-1.0, -0.5, 0.0]]),
    "anchor": torch.tensor([[-3.0, -4.5, 0.0]]),
    "kl": torch.tensor([[0.25, 0.75, 0.0]]),
}


def evaluated(method, state=None):
    return method.loss(BATCH, SIGNALS, state or method.init_state())


def test_both_terms_by_hand():
    # r = .5 * (2, 4) = (1, 2); G = (3, 2); -(3 * -1 + 2 * -2) / 2
    terms = evaluated(Reinforce(beta0=0.5, beta=0.08)).terms
    assert terms["policy"].value.item() == pytest.approx(3.5)
    assert terms["kl"].value.item() == pytest.approx(0.5)
    assert terms["kl"].scale == 0.08


def test_a_discount_makes_later_rewards_count_less():
    # G = (1 + .5 * 2, 2) = (2, 2)
    terms = evaluated(Reinforce(beta0=0.5, gamma=0.5)).terms
    assert terms["policy"].value.item() == pytest.approx(3.0)


def test_no_gradient_goes_through_the_return():
    live = {name: x.clone().requires_grad_() for name, x in SIGNALS.items()}
    method = Reinforce(beta0=0.5)
    method.loss(BATCH, live, method.init_state()).terms["policy"].value.sum().backward()
    assert live["teacher"].grad is None
    torch.testing.assert_close(live["policy"].grad, torch.tensor([[-1.5, -1.0, 0.0]]))


def test_the_baseline_is_a_moving_average_of_the_return():
    method = Reinforce(beta0=0.5, baseline=0.75)
    state = method.next_state(method.init_state(), {"return": 4.0})
    assert state["baseline"].item() == pytest.approx(1.0)
    # G - 1 = (2, 1): -(2 * -1 + 1 * -2) / 2
    assert evaluated(method, state).terms["policy"].value.item() == pytest.approx(2.0)


def test_without_the_option_there_is_no_baseline():
    method = Reinforce()
    assert method.next_state(method.init_state(), {"return": 4.0})["baseline"].item() == 0.0


def one_token(label, policy, reward):
    """The policy term of an answer of one token from log-probabilities and rewards [V]."""
    seen = torch.tensor([[True, True]])
    batch = RolloutBatch(seen.long(), seen, seen & (torch.arange(2) > 0), 0 * ONE, ONE, ONE)
    rows = {"policy": policy, "teacher": reward, "anchor": 0 * reward, "kl": 0 * reward}
    signals = {name: torch.stack([x[label], x.new_zeros(())])[None] for name, x in rows.items()}
    method = Reinforce(beta0=1.0)
    return method.loss(batch, signals, method.init_state()).terms["policy"].value.sum()


def test_on_average_over_the_sampled_token_it_climbs_the_expected_reward():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.1], requires_grad=True)
    reward = torch.tensor([0.5, -2.0, 0.25, 3.0])
    policy = logits.log_softmax(-1)
    chance = policy.detach().exp()
    sampled = sum(chance[v] * one_token(v, policy, reward) for v in range(4))
    exact = -(policy.exp() * reward).sum()
    (one,) = torch.autograd.grad(sampled, logits, retain_graph=True)
    (other,) = torch.autograd.grad(exact, logits)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("method", [Reinforce(), Reinforce(gamma=0.9, baseline=0.9)], ids=str)
def test_the_contract_is_kept(method):
    check_algorithm(method)
