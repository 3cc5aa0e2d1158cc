"""G-OPD, ExOPD and delta distillation on two words, where everything can be worked out by hand."""

import math

import pytest
import torch

from alignzoo.testing import check_algorithm
from alignzoo_gopd import GOPD, OPD2, ExOPD

# One position, two words: the teacher says 3/4 : 1/4, its reference and the student 1/2 : 1/2.
OUTPUTS = {
    "policy": torch.tensor([[0.0, 0.0]], dtype=torch.float64),
    "teacher": torch.tensor([[math.log(3), 0.0]], dtype=torch.float64),
    "reference": torch.tensor([[5.0, 5.0]], dtype=torch.float64),
}
REWARD = 0.5 * math.log(1.5) + 0.5 * math.log(0.5)  # E_pi log(teacher/reference)


def rows(method, **changed):
    found = method.rows({**OUTPUTS, **changed}, torch.tensor([0]))
    return {name: x.item() for name, x in found.items()}


def test_both_terms_by_hand():
    row = rows(GOPD(reward_scale=2.0))
    assert row["loss"] == pytest.approx(0 - 2 * REWARD)  # the student is the reference
    assert row["reward/token"] == pytest.approx(REWARD)
    assert row["kl_full/teacher_token"] == pytest.approx(-REWARD)
    far = torch.tensor([[math.log(4), 0.0]], dtype=torch.float64)  # the student says 4/5 : 1/5
    kl = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    reward = 0.8 * math.log(1.5) + 0.2 * math.log(0.5)
    assert rows(GOPD(reward_scale=2.0), policy=far)["loss"] == pytest.approx(kl - 2 * reward)
    assert rows(OPD2(), policy=far)["loss"] == pytest.approx(-reward)


def test_with_scale_one_the_loss_is_the_kl_to_the_teacher():
    policy = torch.randn(1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    row = rows(GOPD(), policy=policy)
    assert row["loss"] == pytest.approx(row["kl_full/teacher_token"])


def minimum(method):
    """Odds of the first word where the loss is least, found on a grid."""
    odds = torch.linspace(-4, 4, 8001, dtype=torch.float64)[:, None]
    policy = torch.cat([odds, torch.zeros_like(odds)], 1)
    many = {name: x.expand(len(odds), 2) for name, x in OUTPUTS.items()} | {"policy": policy}
    return odds[method.rows(many, torch.zeros(len(odds)).long())["loss"].argmin()].item()


def test_extrapolation_goes_beyond_the_teacher():
    assert minimum(GOPD()) == pytest.approx(math.log(3), abs=1e-3)
    assert minimum(ExOPD(reward_scale=1.5)) == pytest.approx(1.5 * math.log(3), abs=1e-3)
    assert minimum(OPD2()) == 4.0  # as far as the grid goes: nothing holds it


def test_exopd_extrapolates_by_default_and_no_less():
    assert ExOPD().reward_scale > 1


@pytest.mark.parametrize("method", [GOPD(), GOPD(reward_scale=0.5), ExOPD(), OPD2()], ids=str)
def test_the_contract_is_kept(method):
    check_algorithm(method)
