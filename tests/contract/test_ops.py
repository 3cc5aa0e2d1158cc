"""The tensor functions that methods are built from, against numbers worked out by hand."""

import math

import pytest
import torch
from logit_models import Alone
from torch import tensor

from alignzoo import ops
from alignzoo.contract.types import PairBatch
from alignzoo.engine.parallel.ranks import start_ranks

TRUE = torch.ones(1, 3, dtype=torch.bool)
EMPTY = torch.tensor([[False, False, False], [True, True, False]])


def close(got, expected, atol=1e-12):
    expected = torch.as_tensor(expected, dtype=got.dtype)
    assert got.shape == expected.shape
    assert torch.allclose(got, expected, rtol=0, atol=atol), (got, expected)


def row(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


# --- per token


def test_log_prob_of_a_label_is_its_share_of_the_whole_vocabulary():
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log()
    close(ops.label_log_prob(logits, tensor([1])), [math.log(2 / 8)], atol=1e-6)


def test_log_probs_survive_logits_far_apart():
    logits = torch.tensor([[60.0, -60.0]])
    close(ops.label_log_prob(logits, tensor([1])), [-120.0], atol=1e-4)
    close(ops.log_softmax(logits), [[0.0, -120.0]], atol=1e-4)


def test_half_precision_logits_give_full_precision_log_probs():
    logits = torch.zeros(1, 3, dtype=torch.bfloat16)
    assert ops.log_softmax(logits).dtype == torch.float32
    close(ops.label_log_prob(logits, tensor([0])), [-math.log(3)], atol=1e-6)


def test_kl_is_from_the_first_distribution_to_the_second():
    p, q = row(0.5, 0.5).log(), row(0.25, 0.75).log()
    close(ops.kl_divergence(p, q), [0.5 * math.log(2) + 0.5 * math.log(2 / 3)])
    close(ops.kl_divergence(q, p), [0.25 * math.log(0.5) + 0.75 * math.log(1.5)])


def test_jsd_is_the_weighted_distance_to_the_mixture():
    p, q, m = row(0.5, 0.5).log(), row(0.25, 0.75).log(), row(0.3, 0.7).log()
    expected = 0.2 * ops.kl_divergence(p, m) + 0.8 * ops.kl_divergence(q, m)
    close(ops.jsd(p, q, 0.2), expected)
    close(ops.jsd(q, p, 0.8), expected)


def test_jsd_of_disjoint_distributions_is_log_two():
    p, q = row(0.0, -60.0).log_softmax(-1), row(-60.0, 0.0).log_softmax(-1)
    close(ops.jsd(p, q, 0.5), [math.log(2)])


def test_total_variation_is_half_of_the_l1_distance():
    close(ops.total_variation(row(0.5, 0.5, 1e-300).log(), row(0.1, 0.6, 0.3).log()), [0.4])


def test_entropy_of_equal_chances_is_log_of_their_number():
    close(ops.entropy_of(row(0.25, 0.25, 0.25, 0.25).log()), [math.log(4)])


# --- per sequence


def test_sequence_sum_and_mean_look_at_counted_positions_alone():
    x, mask = row(1.0, 2.0, 100.0), torch.tensor([[True, True, False]])
    close(ops.sequence_sum(x, mask), [3.0])
    close(ops.sequence_mean(x, mask), [1.5])


@pytest.mark.parametrize("reduction", ops.REDUCTIONS)
def test_an_empty_row_or_a_nan_outside_the_mask_never_reaches_a_loss(reduction):
    x = torch.full((2, 3), torch.nan, dtype=torch.float64)
    x[1, :2] = tensor([1.0, 3.0], dtype=torch.float64)
    x.requires_grad_()
    term = ops.REDUCTIONS[reduction](x, EMPTY)
    loss = (term.value * term.weights).sum() / term.weights.sum()
    loss.backward()
    close(loss.detach(), {"sequence_mean": 1.0, "sequence_sum": 2.0, "token_mean": 2.0}[reduction])
    assert torch.isfinite(x.grad).all()
    assert not x.grad[~EMPTY].any()


def test_reductions_weigh_short_and_long_rows_as_their_names_say():
    x, mask = torch.ones(2, 3), torch.tensor([[True, False, False], [True, True, True]])
    x[1] *= 5
    of = {name: reduce(x, mask) for name, reduce in ops.REDUCTIONS.items()}
    mean = {n: ((t.value * t.weights).sum() / t.weights.sum()).item() for n, t in of.items()}
    assert mean == {"sequence_mean": 3.0, "sequence_sum": 8.0, "token_mean": 4.0}


# --- preference pairs


def test_implicit_reward_is_beta_times_the_sum_of_log_ratios():
    reward = ops.implicit_reward(0.1, row(-1.0, -2.0, 9.0), row(-3.0, -2.5, 0.0), EMPTY[1:])
    close(reward, [0.25])


def test_a_tie_between_chosen_and_rejected_counts_as_wrong():
    ids = torch.zeros(4, 2, dtype=torch.int64)
    batch = PairBatch(ids, ids.bool(), ids.bool())
    logged = ops.pair_metrics(tensor([2.0, 1.0, 1.5, 1.0]), batch)
    close(logged["rewards/accuracy"].value, [1.0, 0.0])
    close(logged["rewards/margin"].value, [0.5, 0.0])


# --- policy gradient


def test_the_reward_goes_to_the_last_counted_position_of_each_row():
    mask = torch.tensor([[False, True, True, False], [True, False, False, False]])
    spread = ops.spread_on_last(tensor([2.0, -1.0]), mask)
    close(spread, [[0, 0, 2.0, 0], [-1.0, 0, 0, 0]])


def test_the_reward_of_an_empty_row_goes_nowhere():
    close(ops.spread_on_last(tensor([2.0, 3.0]), EMPTY), [[0, 0, 0], [0, 3.0, 0]])


def test_the_reward_to_go_is_discounted_and_stays_within_the_mask():
    mask = torch.tensor([[False, True, True]])
    got = ops.reward_to_go(row(9.0, 1.0, 4.0), mask, gamma=0.5)
    close(got, [[0, 1.0 + 0.5 * 4.0, 4.0]])


def test_group_statistics_look_at_rows_with_the_same_number_alone():
    x = tensor([1.0, 10.0, 2.0, 14.0, 6.0, 5.0], dtype=torch.float64)
    group = tensor([7.0, 4.0, 7.0, 4.0, 7.0, 1.0])
    close(ops.group_mean(x, group), [3.0, 12.0, 3.0, 12.0, 3.0, 5.0])
    a, b = math.sqrt(7), math.sqrt(8)
    close(ops.group_deviation(x, group), [a, b, a, b, a, 0.0])
    close(ops.leave_one_out(x, group), [-3.0, -4.0, -1.5, 4.0, 4.5, 0.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("x", [1000.1, 0.1, -1e30])
def test_equal_numbers_of_a_group_have_no_deviation_and_no_advantage(x, dtype):
    same, group = torch.full((7,), x, dtype=dtype), torch.zeros(7)
    assert ops.group_advantage(same, group).tolist() == [0.0] * 7
    assert ops.group_advantage(same, group, smallest=1e-4).tolist() == [0.0] * 7
    assert ops.leave_one_out(same, group).tolist() == [0.0] * 7
    assert ops.group_deviation(same, group).tolist() == [0.0] * 7
    assert torch.equal(ops.group_mean(same, group), same)


def test_clipping_binds_only_where_it_is_worse_than_the_plain_ratio():
    ratio, advantage = row(1.5, 1.5, 0.5, 0.5), row(1.0, -1.0, 1.0, -1.0)
    close(ops.clip_binds(ratio.log(), advantage, 0.2), [[1.0, 0.0, 0.0, 1.0]])


def test_generalised_advantage_by_hand():
    rewards, values = row(0.0, 1.0, 2.0), row(0.5, 1.0, 1.5)
    # delta = (0 + .9 * 1 - .5, 1 + .9 * 1.5 - 1, 2 - 1.5) = (.4, 1.35, .5), gamma * lam = .45
    got = ops.generalised_advantage(rewards, values, TRUE, gamma=0.9, lam=0.5)
    close(got, [[0.4 + 0.45 * (1.35 + 0.45 * 0.5), 1.35 + 0.45 * 0.5, 0.5]])


def test_values_and_rewards_outside_the_response_do_not_leak_into_advantages():
    mask = torch.tensor([[False, True, True, False]])
    got = ops.generalised_advantage(
        row(9.0, 0.0, 1.0, 9.0), row(9.0, 1.0, 2.0, 9.0), mask, 1.0, 1.0
    )
    close(got, [[0.0, 0.0, -1.0, 0.0]])


def test_without_values_and_with_lambda_one_the_advantage_is_the_discounted_return():
    got = ops.generalised_advantage(row(1.0, 2.0, 4.0), row(0.0, 0.0, 0.0), TRUE, 0.5, 1.0)
    close(got, [[3.0, 4.0, 4.0]])


def test_whitening_uses_the_population_variance_of_counted_positions():
    x, mask = row(1.0, 3.0, 100.0), torch.tensor([[True, True, False]])
    close(ops.whiten(x, mask, Alone()), [[-1.0, 1.0, 0.0]])


def test_whitening_stretches_small_differences_too():
    close(ops.whiten(row(1e-3, -1e-3, 0.0), EMPTY[1:], Alone()), [[1, -1, 0]])


def test_whitening_equal_numbers_gives_zeros():
    close(ops.whiten(row(2.0, 2.0, 2.0), TRUE, Alone()), [[0.0, 0.0, 0.0]])
    mask = torch.ones(7, 11, dtype=torch.bool)
    for x in (1000.1, 0.1, -3e5):
        assert not ops.whiten(torch.full(mask.shape, x), mask, start_ranks("fp32")).any()


def test_the_policy_loss_takes_the_more_pessimistic_side_of_the_clip():
    log_ratio = row(1.5, 1.5, 0.5, 0.5, 1.1).log()
    advantage = row(2.0, -2.0, 2.0, -2.0, 1.0)
    got = ops.clipped_policy_loss(log_ratio, advantage, clip=0.2)
    close(got, [[-2.4, 3.0, -1.0, 1.6, -1.1]])


def test_a_clipped_ratio_has_no_gradient():
    log_ratio = row(1.5, 1.5).log().requires_grad_()
    ops.clipped_policy_loss(log_ratio, row(2.0, -2.0), clip=0.2).sum().backward()
    close(log_ratio.grad, [[0.0, 3.0]])


def test_the_value_loss_takes_the_larger_square_and_half_of_it():
    new, old, returns = row(1.0, 1.0, 0.1), row(0.0, 0.0, 0.0), row(0.0, 2.0, 1.0)
    # V_clip = (.2, .2, .1); squares (1, .04), (1, 3.24), (.81, .81)
    close(ops.clipped_value_loss(new, old, returns, 0.2), [[0.5, 1.62, 0.405]])
    close(ops.clipped_value_loss(new, old, returns, None), [[0.5, 0.5, 0.405]])


def test_k1_may_be_negative_and_k3_may_not():
    d = row(-0.5, 0.0, 2.0)
    close(ops.kl_k1(d), d)
    close(ops.kl_k3(d), [[math.exp(0.5) - 1.5, 0.0, math.exp(-2) + 1]])


def test_k3_keeps_its_digits_for_tiny_log_ratios():
    got = ops.kl_k3(torch.tensor([1e-3], dtype=torch.float64))
    assert abs(got.item() / (1e-6 / 2 - 1e-9 / 6 + 1e-12 / 24) - 1) < 1e-9


def test_what_is_only_watched_has_the_same_values_and_no_gradient():
    logits, labels = torch.randn(5, 7, requires_grad=True), torch.tensor([0, 6, 3, 3, 1])
    signal = ops.watched(ops.log_prob("policy"))
    seen = signal.reduce({"policy": logits}, labels)
    assert not seen.requires_grad
    close(seen, logits.detach().log_softmax(-1)[torch.arange(5), labels], 1e-6)
