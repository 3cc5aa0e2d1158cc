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


# Four words: log-odds of teacher, its base and a student, whose signs agree on some words alone.
FOUR = {
    "teacher": torch.tensor([[2.0, 0.5, -1.0, 0.0]], dtype=torch.float64),
    "reference": torch.tensor([[0.0, 1.0, 0.5, -1.0]], dtype=torch.float64),
    "policy": torch.tensor([[1.0, 0.0, 0.5, 1.5]], dtype=torch.float64),
}


def by_hand():
    """(probabilities, advantage of what the teacher learnt, that of the teacher over the student)
    of every word, in plain Python.
    """
    logs = {}
    for name, logits in FOUR.items():
        whole = math.log(sum(math.exp(x) for x in logits[0].tolist()))
        logs[name] = [x - whole for x in logits[0].tolist()]
    p = [math.exp(x) for x in logs["policy"]]

    def centred(other):
        ratio = [a - b for a, b in zip(logs["teacher"], logs[other], strict=True)]
        mean = sum(x * r for x, r in zip(p, ratio, strict=True))
        return [r - mean for r in ratio]

    return p, centred("reference"), centred("policy")


def test_delta_distillation_rewards_what_the_teacher_learnt_where_the_teacher_agrees():
    p, gain, towards = by_hand()
    agrees = [a * b > 0 for a, b in zip(gain, towards, strict=True)]
    assert len({*agrees}) == 2  # the example has words of both kinds
    counted = [a if agree else 0.0 for a, agree in zip(gain, agrees, strict=True)]
    policy = FOUR["policy"].clone().requires_grad_()
    loss = OPD2().rows({**FOUR, "policy": policy}, torch.tensor([0]))["loss"]
    mean = sum(x * a for x, a in zip(p, counted, strict=True))
    assert loss.item() == pytest.approx(-mean)
    loss.sum().backward()  # policy gradient: -p (A - E A) of every logit
    expected = [-x * (a - mean) for x, a in zip(p, counted, strict=True)]
    assert policy.grad[0].tolist() == pytest.approx(expected)


def test_delta_distillation_leaves_a_student_alone_that_is_its_teacher():
    policy = FOUR["teacher"].clone().requires_grad_()
    OPD2().rows({**FOUR, "policy": policy}, torch.tensor([0]))["loss"].sum().backward()
    assert policy.grad.abs().max().item() == 0


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


def test_exopd_extrapolates_by_default_and_no_less():
    assert ExOPD().reward_scale > 1


@pytest.mark.parametrize("method", [GOPD(), GOPD(reward_scale=0.5), ExOPD(), OPD2()], ids=str)
def test_the_contract_is_kept(method):
    check_algorithm(method)
