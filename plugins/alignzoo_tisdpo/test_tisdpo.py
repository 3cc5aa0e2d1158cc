"""TIS-DPO on a pair, worked out by hand, and against the formula written out in Python."""

import math

import pytest
import torch

from alignzoo import PairBatch
from alignzoo.testing import check_algorithm
from alignzoo_tisdpo import TISDPO

# One pair; columns: prompt, two answer tokens. Position p holds the log-prob of token p + 1.
SEEN = torch.tensor([[True, True, True], [True, True, False]])  # chosen, rejected
BATCH = PairBatch(SEEN.long(), SEEN, SEEN & (torch.arange(3) > 0))


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


GIVEN = {
    "positive": tensor([-1.0, -3.0, 0.0], [-2.0, 0.0, 0.0]),
    "negative": tensor([-2.0, -2.0, 0.0], [-1.8, 0.0, 0.0]),  # log-ratios 1, -1; -0.2
    "policy": tensor([-1.0, -2.0, 0.0], [-4.0, 0.0, 0.0]),
    "reference": tensor([-3.0, -2.5, 0.0], [-3.0, 0.0, 0.0]),  # policy over it: 2, .5; -1
    "kl": tensor([0.1, 0.2, 0.0], [0.3, 0.0, 0.0]),
}


def test_weights_follow_the_two_models_and_are_clamped():
    weight = TISDPO(m=2.0).prepare(BATCH, GIVEN, None)["weight"]
    chosen = [math.exp(2 * 1.0), math.exp(2 * -0.5)]  # the second log-ratio is clamped to -1/2
    assert weight[0].tolist() == pytest.approx([*chosen, 0.0])
    assert weight[1].tolist() == pytest.approx([math.exp(2 * 0.2), 0.0, 0.0])


def test_the_loss_of_a_pair_by_hand():
    method = TISDPO(beta=0.5, alpha=0.25, m=0.0)  # every weight is 1
    given = GIVEN | method.prepare(BATCH, GIVEN, None)
    found = method.loss(BATCH, given, {})
    margin = 0.5 * ((2.5 - 0.25 * 0.3) - (-1 - 0.25 * 0.3))
    assert found.terms.value.item() == pytest.approx(math.log(1 + math.exp(-margin)))
    assert found.metrics["rewards/margin"].value.item() == pytest.approx(0.5 * 3.5)


def test_without_weights_and_divergences_it_is_dpo():
    method = TISDPO(beta=0.5, alpha=0.0, m=0.0)
    found = method.loss(BATCH, GIVEN | method.prepare(BATCH, GIVEN, None), {})
    assert found.terms.value.item() == pytest.approx(math.log(1 + math.exp(-0.5 * 3.5)))


def plain(method, given, mask, pairs):
    """[I] losses, token by token."""

    def side(row, sign):
        total = 0.0
        for t in range(mask.shape[1]):
            if mask[row, t]:
                at = {name: x[row, t].item() for name, x in given.items()}
                seen = min(max(at["positive"] - at["negative"], method.low), method.high)
                weight = math.exp(sign * method.m * seen)
                total += weight * (at["policy"] - at["reference"] - method.alpha * at["kl"])
        return total

    margins = [method.beta * (side(i, 1) - side(pairs + i, -1)) for i in range(pairs)]
    return [-math.log(1 / (1 + math.exp(-margin))) for margin in margins]


@pytest.mark.parametrize(
    "method", [TISDPO(), TISDPO(alpha=0.1, m=2.0, low=-1.0, high=0.3)], ids=str
)
def test_losses_on_random_inputs_equal_an_independent_transcription(method):
    torch.manual_seed(11)
    seen = torch.arange(6) < torch.tensor([6, 3, 5, 2, 4, 6])[:, None]
    batch = PairBatch(seen.long(), seen, seen & (torch.arange(6) > 0))
    given = {name: -2 * torch.rand(6, 6, dtype=torch.float64) for name in GIVEN}
    given["kl"] = -given["kl"]
    got = method.loss(batch, given | method.prepare(batch, given, None), {}).terms.value
    assert got.tolist() == pytest.approx(plain(method, given, batch.mask, 3), rel=1e-12)


@pytest.mark.parametrize("method", [TISDPO(), TISDPO(alpha=0.0, m=2.0)], ids=str)
def test_the_contract_is_kept(method):
    check_algorithm(method)
