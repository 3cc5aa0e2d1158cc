"""PPO on one short answer, worked out by hand."""

import pytest
import torch

from alignzoo import RolloutBatch
from alignzoo.testing import check_algorithm
from alignzoo_ppo import PPO

# One answer of two tokens, reward 12; position p holds the numbers of token p + 1.
SEEN = torch.tensor([[True, True, True]])
ONE = torch.ones(1)
BATCH = RolloutBatch(SEEN.long(), SEEN, SEEN & (torch.arange(3) > 0), 12 * ONE, ONE, 0 * ONE)
SNAPSHOTS = {
    "old": torch.tensor([[-1.0, -2.0, 0.0]]),
    "reference": torch.tensor([[-2.0, -1.5, 0.0]]),
    "old_value": torch.tensor([[1.0, 4.0, 0.0]]),
}
METHOD = PPO(kl_coef=0.1, lam=0.5, value_coef=0.25, whiten_advantages=False)


class Alone:
    """The only rank."""

    def sum(self, x):
        return x

    def mean(self, x, mask):
        return x[mask].mean()


def prepared(method):
    return method.prepare(BATCH, SNAPSHOTS, Alone())


def test_the_kl_is_paid_per_token_and_the_clipped_reward_comes_last():
    rewards = METHOD.token_rewards(BATCH, SNAPSHOTS)
    torch.testing.assert_close(rewards, torch.tensor([[-0.1, 10.05, 0.0]]))


def test_advantages_and_returns_by_hand():
    # delta = (-.1 + 4 - 1, 10.05 - 4) = (2.9, 6.05); A = (2.9 + .5 * 6.05, 6.05)
    ready = prepared(METHOD)
    torch.testing.assert_close(ready["advantage"], torch.tensor([[5.925, 6.05, 0.0]]))
    torch.testing.assert_close(ready["return"], torch.tensor([[6.925, 10.05, 0.0]]))


def test_whitening_touches_advantages_alone():
    ready = prepared(PPO(kl_coef=0.1, lam=0.5))
    torch.testing.assert_close(ready["advantage"], torch.tensor([[-1.0, 1.0, 0.0]]))
    torch.testing.assert_close(ready["return"], torch.tensor([[6.925, 10.05, 0.0]]))


def test_both_losses_by_hand():
    live = {
        "policy": SNAPSHOTS["old"] + torch.tensor([[1.5, 0.5, 1.0]]).log(),
        "value": torch.tensor([[2.0, 4.1, 0.0]]),
    }
    given = {
        "advantage": torch.tensor([[2.0, 4.0, 0.0]]),
        "return": torch.tensor([[3.0, 4.0, 0.0]]),
    }
    loss = METHOD.loss(BATCH, {**SNAPSHOTS, **given, **live}, {})
    policy, value = loss.terms["policy"], loss.terms["value"]
    # -(1.2 * 2 + .5 * 4) / 2: the first ratio is clipped, the second is worse unclipped
    assert policy.value.item() == pytest.approx(-2.2)
    # V_clip = (1.2, 4.1): (max(1.8^2, 1) + .1^2) / 2 / 2
    assert value.value.item() == pytest.approx((3.24 + 0.01) / 4)
    assert (policy.scale, value.scale) == (1.0, 0.25)
    clipped = loss.metrics["clip_fraction"]
    assert (clipped.value * clipped.weight).sum().item() == 1


@pytest.mark.parametrize("method", [PPO(), PPO(reduction="token_mean", value_clip=None)], ids=str)
def test_the_contract_is_kept(method):
    check_algorithm(method)
