"""Both forms of RTO on an answer of two tokens, worked out by hand."""

import pytest
import torch

from alignzoo import RolloutBatch
from alignzoo.testing import check_algorithm
from alignzoo_rto import RTO, RTOv3

# Reward 12; columns: prompt, two answer tokens. Position p holds the numbers of token p + 1.
SEEN = torch.tensor([[True, True, True]])
ONE = torch.ones(1)
BATCH = RolloutBatch(SEEN.long(), SEEN, SEEN & (torch.arange(3) > 0), 12 * ONE, ONE, 0 * ONE)
SNAPSHOTS = {
    "old": torch.tensor([[-1.0, -2.0, 5.0]]),
    "reference": torch.tensor([[-2.0, -1.0, 0.0]]),
    "teacher": torch.tensor([[-1.0, -4.0, 0.0]]),
    "old_value": torch.tensor([[1.0, 2.0, 0.0]]),
}


class Alone:
    """The only rank."""

    def mean(self, x, mask):
        return x[mask].mean()


def rewards(method):
    return method.token_rewards(BATCH, SNAPSHOTS)


def test_every_token_is_paid_by_the_dpo_model_and_no_reward_is_needed():
    # beta1 * (1, -3) - beta2 * (1, -1)
    got = rewards(RTO(beta1=0.5, beta2=0.1))
    torch.testing.assert_close(got, torch.tensor([[0.4, -1.4, 0.0]]))


def test_the_dpo_part_is_clipped_before_the_kl_is_paid():
    got = rewards(RTO(beta1=0.5, beta2=0.1, token_clip=0.25))
    torch.testing.assert_close(got, torch.tensor([[0.15, -0.15, 0.0]]))


def test_in_the_third_version_the_clipped_reward_comes_last():
    got = rewards(RTOv3(beta1=0.5, beta2=0.1, token_clip=0.25))
    torch.testing.assert_close(got, torch.tensor([[0.15, 9.85, 0.0]]))


def test_without_clips_the_third_version_adds_the_reward_to_the_second():
    given = {"beta1": 0.5, "beta2": 0.1, "token_clip": None}
    last = torch.tensor([[0.0, 12.0, 0.0]])
    torch.testing.assert_close(
        rewards(RTOv3(reward_clip=None, **given)), rewards(RTO(**given)) + last
    )


def test_advantages_and_returns_by_hand():
    method = RTO(beta1=0.5, beta2=0.1, lam=0.5, whiten_advantages=False)
    ready = method.prepare(BATCH, SNAPSHOTS, Alone())
    # delta = (.4 + 2 - 1, -1.4 - 2) = (1.4, -3.4); A = (1.4 - .5 * 3.4, -3.4)
    torch.testing.assert_close(ready["advantage"], torch.tensor([[-0.3, -3.4, 0.0]]))
    torch.testing.assert_close(ready["return"], torch.tensor([[0.7, -1.4, 0.0]]))


def test_whitening_touches_advantages_alone():
    ready = RTO(beta1=0.5, beta2=0.1, lam=0.5).prepare(BATCH, SNAPSHOTS, Alone())
    torch.testing.assert_close(ready["advantage"], torch.tensor([[1.0, -1.0, 0.0]]))
    torch.testing.assert_close(ready["return"], torch.tensor([[0.7, -1.4, 0.0]]))


def test_both_losses_by_hand():
    live = {
        "policy": SNAPSHOTS["old"] + torch.tensor([[1.5, 0.5, 1.0]]).log(),
        "value": torch.tensor([[2.0, 2.1, 0.0]]),
    }
    given = {
        "advantage": torch.tensor([[2.0, 4.0, 0.0]]),
        "return": torch.tensor([[3.0, 2.0, 0.0]]),
    }
    loss = RTO(value_coef=0.25).loss(BATCH, {**SNAPSHOTS, **given, **live}, {})
    # -(1.2 * 2 + .5 * 4) / 2, and V_clip = (1.2, 2.1): (max(1.8^2, 1) + .1^2) / 2 / 2
    assert loss.terms["policy"].value.item() == pytest.approx(-2.2)
    assert loss.terms["value"].value.item() == pytest.approx((3.24 + 0.01) / 4)
    assert loss.terms["value"].scale == 0.25


@pytest.mark.parametrize("method", [RTO(), RTO(reduction="token_mean"), RTOv3()], ids=str)
def test_the_contract_is_kept(method):
    check_algorithm(method)
