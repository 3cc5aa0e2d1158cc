"""RLOO on three answers to one prompt and two to another, worked out by hand."""

import pytest
import torch

from alignzoo import RolloutBatch
from alignzoo.testing import check_algorithm
from alignzoo_rloo import RLOO

# Five answers of one token after one of prompt; the two groups lie mixed.
N = 5
SEEN = torch.ones(N, 2, dtype=torch.bool)
REWARD = torch.tensor([1.0, 10.0, 2.0, 14.0, 6.0])
GROUP = torch.tensor([7.0, 4.0, 7.0, 4.0, 7.0])
BATCH = RolloutBatch(SEEN.long(), SEEN, SEEN & (torch.arange(2) > 0), REWARD, 0 * REWARD, GROUP)
REFERENCE = torch.full((N, 2), -1.0)
SNAPSHOTS = {"old": REFERENCE, "reference": REFERENCE}


def test_an_answer_is_compared_with_the_others_to_its_prompt():
    ready = RLOO().prepare(BATCH, SNAPSHOTS, None)["advantage"]
    # 1 - (2 + 6) / 2, 10 - 14, 2 - (1 + 6) / 2, 14 - 10, 6 - (1 + 2) / 2
    torch.testing.assert_close(ready, torch.tensor([-3.0, -4.0, -1.5, 4.0, 4.5]))


def test_the_kl_to_the_reference_is_paid_from_the_reward():
    old = REFERENCE.clone()
    old[1, 0] += 4.0  # the second answer became more likely by 4 nats
    ready = RLOO(kl_coef=0.5).prepare(BATCH, {"old": old, "reference": REFERENCE}, None)
    # 10 - 2 against 14
    assert ready["advantage"][1].item() == pytest.approx(-6.0)
    assert ready["advantage"][3].item() == pytest.approx(6.0)


def test_the_loss_is_the_advantage_times_the_log_probability_of_the_answer():
    advantage = torch.tensor([-3.0, -4.0, -1.5, 4.0, 4.5])
    given = {**SNAPSHOTS, "advantage": advantage, "policy": REFERENCE}
    loss = RLOO().loss(BATCH, given, {})
    torch.testing.assert_close(loss.terms.value, advantage)  # -A * -1


@pytest.mark.parametrize("reward", [3.0, 1000.1, 0.1])
def test_equal_rewards_teach_nothing(reward):
    same = RolloutBatch(BATCH.ids, SEEN, BATCH.response, 0 * REWARD + reward, 0 * REWARD, GROUP)
    assert not RLOO().prepare(same, SNAPSHOTS, None)["advantage"].any()


@pytest.mark.parametrize("method", [RLOO(), RLOO(reduction="sequence_mean")], ids=str)
def test_the_contract_is_kept(method):
    check_algorithm(method)
