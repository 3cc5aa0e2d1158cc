"""Dr. GRPO, GSPO and CISPO on two answers, worked out by hand and against plain formulas."""

import math

import pytest
import torch

from alignzoo import RolloutBatch
from alignzoo.testing import check_algorithm
from alignzoo_grpo import CISPO, GRPO, GSPO, DrGRPO


def two_answers():
    """Answers of one and two tokens to one prompt, rewarded 3 and 1."""
    seen = torch.tensor([[True, True, False], [True, True, True]])
    reward = torch.tensor([3.0, 1.0])
    answer = seen & (torch.arange(3) > 0)
    return RolloutBatch(seen.long(), seen, answer, reward, reward, 0 * reward)


def given(ratios, advantages, old=-1.0):
    """Signals with these ratios and advantages [2, 3]."""
    base = torch.full((2, 3), old)
    moved = torch.tensor(ratios).log()
    return {"old": base, "policy": base + moved, "advantage": torch.tensor(advantages)}


def share(metric):
    return ((metric.value * metric.weight).sum() / metric.weight.sum()).item()


def test_dr_grpo_sums_over_tokens_and_divides_by_the_constant():
    signals = given([[1.5, 1, 1], [1.5, 0.5, 1]], [[2.0, 0, 0], [-3.0, -3, 0]])
    loss = DrGRPO(constant=4).loss(two_answers(), signals, {})
    # 1.5 is clipped to 1.2 where A > 0; where A < 0 the worse of the two counts: 1.5 and 0.8
    assert loss.terms.value.tolist() == pytest.approx([-1.2 * 2 / 4, (1.5 + 0.8) * 3 / 4])
    assert share(loss.metrics["clip_fraction"]) == pytest.approx(2 / 3)


def test_dr_grpo_subtracts_the_mean_alone():
    got = DrGRPO().prepare(two_answers(), {"old": torch.zeros(2, 3)}, None)["advantage"]
    torch.testing.assert_close(got, torch.tensor([[1.0, 0, 0], [-1.0, -1, 0]]))


def test_dr_grpo_is_grpo_without_scale_and_kl():
    signals = given([[1.5, 1, 1], [0.9, 0.5, 1]], [[2.0, 0, 0], [-3.0, -3, 0]])
    ours = DrGRPO(constant=7).loss(two_answers(), signals, {}).terms
    theirs = GRPO(scale=False, reduction="sequence_sum", constant=7, kl_coef=0.0)
    term = theirs.loss(two_answers(), signals | {"reference": signals["old"]}, {}).terms["policy"]
    torch.testing.assert_close(ours.value, term.value * term.scale)


def test_gspo_has_one_ratio_per_answer_the_root_of_the_product():
    signals = given([[1.5, 1, 1], [4.0, 0.25, 1]], [[2.0, 0, 0], [-3.0, -3, 0]])
    loss = GSPO(clip_low=0.1, clip_high=0.2).loss(two_answers(), signals, {})
    # sqrt(4 * 1/4) = 1 is inside; 1.5 is clipped to 1.2
    assert loss.terms.value.tolist() == pytest.approx([-2.4, 3.0])
    assert share(loss.metrics["clip_fraction"]) == pytest.approx(1 / 3)  # of all tokens


def test_every_token_of_a_clipped_answer_is_without_gradient_in_gspo():
    signals = given([[1.5, 1, 1], [4.0, 0.25, 1]], [[2.0, 0, 0], [-3.0, -3, 0]])
    policy = signals["policy"].requires_grad_()
    GSPO().loss(two_answers(), signals, {}).terms.value.sum().backward()
    # d/dlog pi_t of s A = s A / n = 3 / 2 for both tokens of the second answer
    torch.testing.assert_close(policy.grad, torch.tensor([[0.0, 0, 0], [1.5, 1.5, 0]]))


def test_cispo_clips_the_weight_and_keeps_the_gradient():
    signals = given([[8.0, 1, 1], [0.5, 2.0, 1]], [[2.0, 0, 0], [-3.0, -3, 0]])
    policy = signals["policy"].requires_grad_()
    loss = CISPO().loss(two_answers(), signals, {})
    term = loss.terms
    assert (term.value * term.weights).sum().item() == pytest.approx(
        -5 * 2 * (math.log(8) - 1) + 3 * (0.5 * (math.log(0.5) - 1) + 2 * (math.log(2) - 1))
    )
    (term.value * term.weights).sum().backward()
    torch.testing.assert_close(policy.grad, torch.tensor([[-10.0, 0, 0], [1.5, 6.0, 0]]))
    assert share(loss.metrics["clip_fraction"]) == pytest.approx(1 / 3)


def plain(name, log_ratio, policy, advantage, mask):
    """Losses from their equations, token by token, in Python."""
    rows = []
    for r, p, a, m in zip(*(x.tolist() for x in (log_ratio, policy, advantage, mask)), strict=True):
        kept = [(x, y, z) for x, y, z, w in zip(r, p, a, m, strict=True) if w]
        if name == "gspo":
            s = math.exp(sum(x for x, _, _ in kept) / len(kept))
            same = kept[0][2]
            rows.append(-min(s * same, min(max(s, 1 - 3e-4), 1 + 4e-4) * same))
        elif name == "cispo":
            rows += [-min(math.exp(x), 5.0) * z * y for x, y, z in kept]
        else:
            clip = lambda x: min(max(math.exp(x), 0.8), 1.2)  # noqa: E731
            rows.append(sum(-min(math.exp(x) * z, clip(x) * z) for x, _, z in kept))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("method", [DrGRPO(), GSPO(), CISPO()], ids=lambda m: m.name)
def test_losses_on_random_inputs_equal_an_independent_transcription(method):
    torch.manual_seed(7)
    answers, columns = 6, 9
    lengths = torch.tensor([9, 4, 7, 2, 9, 5])
    seen = torch.arange(columns) < lengths[:, None]
    mask = seen & (torch.arange(columns) > 0)
    reward = torch.randn(answers)
    batch = RolloutBatch(seen.long(), seen, mask, reward, reward, torch.arange(answers) // 3 * 1.0)
    wide = {"dtype": torch.float64}
    old, moved = -torch.rand(answers, columns, **wide), 0.5 * torch.randn(answers, columns, **wide)
    signals = {"old": old, "policy": old + moved}
    signals |= method.prepare(batch, signals, None)
    term = method.loss(batch, signals, {}).terms
    weights = torch.ones_like(term.value) if term.weights is None else term.weights
    got = (term.value * weights).sum() / weights.sum()
    name = method.name
    expected = plain(name, moved, signals["policy"], signals["advantage"], batch.mask)
    assert got.item() == pytest.approx(expected, rel=1e-12)


METHODS = [DrGRPO(constant=6), GSPO(), GSPO(clip_low=0.2, clip_high=0.2), CISPO(cap=1.1)]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_contract_is_kept(method):
    check_algorithm(method)
