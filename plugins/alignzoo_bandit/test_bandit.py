"""The bandit on an answer of two tokens, worked out by hand."""

import pytest
import torch

from alignzoo import RolloutBatch
from alignzoo.testing import check_algorithm
from alignzoo_bandit import Bandit

# Columns: prompt, two answer tokens. Position p holds the numbers of token p + 1.
SEEN = torch.tensor([[True, True, True]])
ONE = torch.ones(1)
BATCH = RolloutBatch(SEEN.long(), SEEN, SEEN & (torch.arange(3) > 0), 0 * ONE, ONE, ONE)
SIGNALS = {
    "policy": torch.tensor([[-1.0, -2.0, 0.0]]),
    "teacher": torch.tensor([[-2.0, -3.0, 0.0]]),
    "anchor": torch.tensor([[-3.0, -8.0, 0.0]]),
    "kl": torch.tensor([[0.25, 0.75, 0.0]]),
}
# r = .5 * (1 + 5) = 3; log(pi/pi_dpo)(y|x) = 2; mean log-probability -1.5
LOSSES = {
    "in_reward": 2.8 * 1.5,  # R = 3 - .1 * 2
    "literal": 3 * 1.5 + 0.1 * 2 / 2,
    "exact_token_kl": 3 * 1.5 + 0.1 * 0.5,
}
# -(weight of both tokens) / 2; the literal mode adds .1 / 2 and no more control than that
GRADIENTS = {"in_reward": -1.4, "literal": -1.45, "exact_token_kl": -1.5}


def total(mode, signals):
    terms = Bandit(beta0=0.5, beta=0.1, kl_mode=mode).loss(BATCH, signals, {}).terms
    return sum(term.scale * term.value.sum() for term in terms.values())


@pytest.mark.parametrize("mode", LOSSES)
def test_the_loss_of_every_kl_mode_by_hand(mode):
    assert total(mode, SIGNALS).item() == pytest.approx(LOSSES[mode])


@pytest.mark.parametrize("mode", GRADIENTS)
def test_every_token_gets_the_same_credit(mode):
    live = dict(SIGNALS, policy=SIGNALS["policy"].clone().requires_grad_())
    total(mode, live).backward()
    expected = GRADIENTS[mode] * torch.tensor([[1.0, 1.0, 0.0]])
    torch.testing.assert_close(live["policy"].grad, expected)


@pytest.mark.parametrize("mode", LOSSES)
def test_the_contract_is_kept(mode):
    check_algorithm(Bandit(kl_mode=mode))
