"""Distillation on two words, where everything can be worked out by hand."""

import math

import pytest
import torch

from alignzoo.testing import check_algorithm
from alignzoo_gkd import GKD

# One position, two words: the teacher says 3/4 : 1/4, the student 1/2 : 1/2.
OUTPUTS = {
    "policy": torch.tensor([[2.0, 2.0]], dtype=torch.float64),
    "teacher": torch.tensor([[math.log(3), 0.0]], dtype=torch.float64),
}
LABEL = torch.tensor([0])


def kl(p, q):
    """KL of p : 1 - p from q : 1 - q."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


MIXED = 0.2 * 3 / 4 + 0.8 / 2  # beta teacher + (1 - beta) student
VALUES = {
    "forward": kl(3 / 4, 1 / 2),
    "reverse": kl(1 / 2, 3 / 4),
    "jsd": 0.2 * kl(3 / 4, MIXED) + 0.8 * kl(1 / 2, MIXED),
}


@pytest.mark.parametrize("divergence", VALUES)
def test_each_divergence_by_hand(divergence):
    rows = GKD(divergence=divergence, beta=0.2).rows(OUTPUTS, LABEL)
    assert rows["loss"].item() == pytest.approx(VALUES[divergence])
    assert rows["kl"].item() == pytest.approx(VALUES["reverse"])


def test_the_temperature_flattens_both():
    rows = GKD(divergence="forward", temperature=2.0).rows(OUTPUTS, LABEL)
    odds = math.sqrt(3)
    assert rows["loss"].item() == pytest.approx(kl(odds / (1 + odds), 1 / 2))
    assert rows["kl"].item() == pytest.approx(VALUES["reverse"])


@pytest.mark.parametrize("divergence", VALUES)
def test_a_student_that_equals_its_teacher_is_at_rest(divergence):
    policy = OUTPUTS["teacher"].clone().requires_grad_()
    loss = GKD(divergence=divergence).rows(OUTPUTS | {"policy": policy}, LABEL)["loss"]
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert policy.grad.abs().max().item() == pytest.approx(0.0, abs=1e-12)


def test_a_mixture_of_the_teacher_alone_is_refused():
    with pytest.raises(ValueError, match="below 1"):
        GKD(beta=1.0)


@pytest.mark.parametrize("divergence", VALUES)
def test_the_contract_is_kept(divergence):
    check_algorithm(GKD(divergence=divergence))
