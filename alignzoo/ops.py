"""Pure tensor functions and ready-made signals that algorithms are built from.

Token functions map logits [n, V] and labels [n] to [n]; sequence functions map [B, S] with a mask
to [B]. Log-probabilities are natural logs over the full vocabulary, in at least float32. A token
may have probability exactly 0: it adds 0 to every divergence and entropy, and to their gradients.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from alignzoo import closed
from alignzoo.contract.closed import Own, is_own
from alignzoo.contract.types import Mean, Outputs, PairBatch, Rows, Signal, Signals, Term, World

if TYPE_CHECKING:
    from torch import Tensor

    from alignzoo.contract.closed import Closed

# --- per token ----------------------------------------------------------------------------------


def log_softmax(logits: Tensor) -> Tensor:
    """[n, V] log-probabilities, never in less than float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def label_log_prob(logits: Tensor, labels: Tensor) -> Tensor:
    """[n] log p(label) = z_label - logsumexp(z)."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    picked = logits.gather(-1, labels[:, None]).squeeze(-1)
    return picked - logits.logsumexp(-1)


def expectation(log_p: Tensor, x: Tensor) -> Tensor:
    """[n] sum_v p(v) x(v) over p(v) > 0, whatever x is elsewhere; +inf where x is, with p(v) > 0.

    Raises nothing: a sum that is not finite is for the caller to see.
    """
    x = x.masked_fill(log_p.isneginf(), 0.0)
    total = (log_p.exp() * x).sum(-1)
    # exp(log p) may underflow to 0, and 0 times infinity would be no number.
    return total.masked_fill(x.detach().amax(-1).isposinf(), torch.inf)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """[n] KL(p || q) = sum_v p(v) (log p(v) - log q(v)) from log-probabilities [n, V].

    0 log 0 = 0; +inf where some q(v) is 0 and p(v) is not.
    """
    return expectation(log_p, log_p - log_q)


def log_ratio(log_p: Tensor, log_q: Tensor) -> Tensor:
    """[n, V] log p(v) - log q(v); 0 where both are impossible."""
    return (log_p - log_q).masked_fill(log_p.isneginf() & log_q.isneginf(), 0.0)


def interpolated(log_p: Tensor, log_q: Tensor, weight: Tensor) -> Tensor:
    """[n, V] log q + weight (log p - log q), not normalised; its limit where q is 0."""
    ratio = log_ratio(log_p, log_q)
    beyond = torch.where(weight == 1, 0.0, (weight - 1) * ratio)
    return torch.where(log_q.isneginf(), log_p + beyond, log_q + weight * ratio)


def jsd(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """[n] beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q, 0 < beta < 1.

    Generalised Jensen-Shannon divergence (arXiv:2306.13649); at 1/2 symmetric, at most log 2.
    """
    neither = log_p.isneginf() & log_q.isneginf()  # logaddexp has no gradient there
    own, other = log_p.masked_fill(neither, 0.0), log_q.masked_fill(neither, 0.0)
    log_m = torch.logaddexp(own + math.log(beta), other + math.log1p(-beta))
    log_m = log_m.masked_fill(neither, -torch.inf)
    return beta * kl_divergence(log_p, log_m) + (1 - beta) * kl_divergence(log_q, log_m)


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """[n] TVD = 1/2 sum_v |p(v) - q(v)|, in [0, 1]."""
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)


def entropy_of(log_p: Tensor) -> Tensor:
    """[n] entropy -sum_v p(v) log p(v), in nats; 0 log 0 = 0."""
    return -expectation(log_p, log_p)


def log_sigmoid(x: Tensor) -> Tensor:
    """Log sigmoid(x), stable for large |x|."""
    return torch.nn.functional.logsigmoid(x)


# --- signals ------------------------------------------------------------------------------------


def _own(
    roles: tuple[str, ...],
    key: str,
    compute: Callable[[Outputs, Tensor], Rows],
    form: Closed | None,
) -> Signal:
    return Signal(roles, Own(compute, form), key=key, closed=form)


def log_prob(role: str) -> Signal:
    """Log p(label) under a role."""
    form = closed.log_prob(role)
    return _own((role,), "log_prob", lambda out, y: label_log_prob(out[role], y), form)


def entropy(role: str) -> Signal:
    """Entropy of a role's next-token distribution."""
    form = closed.entropy(role)
    return _own((role,), "entropy", lambda out, _: entropy_of(log_softmax(out[role])), form)


def value(role: str) -> Signal:
    """Output of a scalar head: V(s_t), read where the logits of token t would be."""
    return _own((role,), "value", lambda out, _: out[role].squeeze(-1), closed.value(role))


def kl(of: str, to: str) -> Signal:
    """Full-vocabulary KL(of || to) per position."""

    def compute(out: Outputs, _: Tensor) -> Tensor:
        return kl_divergence(log_softmax(out[of]), log_softmax(out[to]))

    return _own((of, to), "kl", compute, closed.kl(of, to))


def watched(signal: Signal) -> Signal:
    """The same values without gradient: of a signal that is logged and stands in no loss.

    A graph that no gradient goes back through would hold its logits [n, V] until the whole
    micro-batch is done.
    """

    def compute(out: Outputs, labels: Tensor) -> Rows:
        with torch.no_grad():
            return signal.reduce(out, labels)

    form = None if signal.closed is None else closed.watched(signal.closed)
    reduce = Own(compute, form) if is_own(signal.reduce, signal.closed) else compute
    return dataclasses.replace(signal, reduce=reduce, closed=form)


# --- parts of closed forms, for those of methods -------------------------------------------------

Between = closed.Between
kernels = closed.kernels
absolute_sum = closed.absolute_sum
expected = closed.expected
expected_gradient = closed.expected_gradient
normalised = closed.normalised

# --- per sequence -------------------------------------------------------------------------------


def sequence_sum(x: Tensor, mask: Tensor) -> Tensor:
    """[B] sum of x [B, S] where mask."""
    return x.masked_fill(~mask, 0.0).sum(-1)


def sequence_mean(x: Tensor, mask: Tensor) -> Tensor:
    """[B] mean of x [B, S] where mask; 0 for an empty row, never NaN."""
    return sequence_sum(x, mask) / mask.sum(-1).clamp(min=1)


def sequence_mean_term(x: Tensor, mask: Tensor) -> Term:
    """Mean over a sequence's tokens, then over sequences."""
    return Term(sequence_mean(x, mask))


def sequence_sum_term(x: Tensor, mask: Tensor) -> Term:
    """Sum over a sequence's tokens, then mean over sequences."""
    return Term(sequence_sum(x, mask))


def token_mean_term(x: Tensor, mask: Tensor) -> Term:
    """Mean over all tokens of the optimiser batch."""
    return Term(x.masked_fill(~mask, 0.0), mask)


REDUCTIONS: Mapping[str, Callable[[Tensor, Tensor], Term]] = {
    "sequence_mean": sequence_mean_term,
    "sequence_sum": sequence_sum_term,
    "token_mean": token_mean_term,
}

# --- preference pairs ---------------------------------------------------------------------------


def implicit_reward(beta: float, policy: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """[B] DPO reward beta * sum_t (log pi - log pi_ref)(y_t) (arXiv:2305.18290).

    The difference is taken per token before the sum, which keeps fp32 exact enough. With the
    reverse model as reference it is the contrastive reward of AlignDistil Eq. 12.
    """
    return beta * sequence_sum(policy - reference, mask)


def pair_metrics(reward: Tensor, batch: PairBatch) -> dict[str, Mean]:
    """Chosen and rejected reward [B], their margin, and accuracy (a tie is wrong)."""
    reward = reward.detach()
    chosen, rejected = reward[batch.chosen], reward[batch.rejected]
    return {
        "rewards/chosen": Mean(chosen),
        "rewards/rejected": Mean(rejected),
        "rewards/margin": Mean(chosen - rejected),
        "rewards/accuracy": Mean((chosen > rejected).to(reward)),
    }


def pair_log_probs(log_probs: Tensor, batch: PairBatch) -> dict[str, Mean]:
    """Summed log-probability of the chosen and rejected response from log_probs [B, S].

    A margin also grows while both fall; these show it.
    """
    total = sequence_sum(log_probs.detach(), batch.mask)
    return {
        "logps/chosen": Mean(total[batch.chosen]),
        "logps/rejected": Mean(total[batch.rejected]),
    }


# --- policy gradient ----------------------------------------------------------------------------


def spread_on_last(reward: Tensor, mask: Tensor) -> Tensor:
    """[B, S] zero but for reward [B] at each row's last counted position."""
    column = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, column, -1).amax(-1, keepdim=True)
    return torch.where(column == last, reward[:, None], 0.0).to(reward) * mask


def generalised_advantage(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> Tensor:
    """[B, S] A_t = sum_k (gamma lam)^k delta_{t+k}, delta_t = r_t + gamma V_{t+1} - V_t.

    The counted positions of a row are contiguous and V = 0 after the last (arXiv:1506.02438).
    """
    values = values * mask
    following = torch.nn.functional.pad(values[:, 1:], (0, 1))
    delta = (rewards + gamma * following - values) * mask
    advantage = torch.zeros_like(delta)
    running = torch.zeros_like(delta[:, 0])
    for t in range(delta.shape[1] - 1, -1, -1):
        running = delta[:, t] + gamma * lam * running
        advantage[:, t] = running
    return advantage * mask


def reward_to_go(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """[B, S] G_t = sum_{i >= t} gamma^(i - t) r_i over the counted positions of a row."""
    return generalised_advantage(rewards, torch.zeros_like(rewards), mask, gamma, lam=1.0)


def whiten(x: Tensor, mask: Tensor, world: World) -> Tensor:
    """[B, S] (x - mean) / std over every counted position of the buffer and all ranks.

    Population variance, clamped at 1e-8. In float64 until the end: equal x give exactly 0, where
    the rounding of a float32 mean would be stretched to about 1.
    """
    wide = x.double()
    centred = wide - world.mean(wide, mask)
    variance = world.mean(centred**2, mask)
    return (centred * variance.clamp(min=1e-8).rsqrt() * mask).to(x)


def clipped_policy_loss(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-min(rho A, clip(rho, 1 - clip, 1 + clip) A) per token, rho = exp(log_ratio)."""
    ratio = log_ratio.exp()
    return -torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def clip_binds(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """1 where `clipped_policy_loss` has no gradient because clipping binds, else 0."""
    ratio = log_ratio.exp()
    return (ratio.clamp(1 - clip, 1 + clip) * advantage < ratio * advantage).to(ratio)


def clipped_value_loss(new: Tensor, old: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """1/2 max((V_clip - G)^2, (V - G)^2) per token, V_clip = V_old + clip(V - V_old)."""
    plain = (new - returns) ** 2
    if clip is None:
        return 0.5 * plain
    near = old + (new - old).clamp(-clip, clip)
    return 0.5 * torch.max((near - returns) ** 2, plain)


def clipped_policy_term(signals: Signals, mask: Tensor, clip: float, reduction: str) -> Term:
    """`clipped_policy_loss` of the signals policy, old and advantage."""
    log_ratio = signals["policy"] - signals["old"]
    return REDUCTIONS[reduction](clipped_policy_loss(log_ratio, signals["advantage"], clip), mask)


def clipped_value_term(
    signals: Signals, mask: Tensor, clip: float | None, scale: float, reduction: str
) -> Term:
    """`scale` times `clipped_value_loss` of the signals value, old_value and return."""
    loss = clipped_value_loss(signals["value"], signals["old_value"], signals["return"], clip)
    return dataclasses.replace(REDUCTIONS[reduction](loss, mask), scale=scale)


def actor_critic_metrics(signals: Signals, mask: Tensor, clip: float) -> dict[str, Mean]:
    """Share of clipped tokens, mean value and mean return, over tokens."""
    log_ratio = signals["policy"].detach() - signals["old"]
    return {
        "clip_fraction": Mean(clip_binds(log_ratio, signals["advantage"], clip), mask),
        "values/mean": Mean(signals["value"].detach(), mask),
        "return": Mean(signals["return"], mask),
    }


def _numbers(group: Tensor) -> Tensor:
    """[B] int64: 0, 1, ... for the values of group [B]."""
    number: Tensor = group.unique(return_inverse=True)[1]
    return number


def _group_sum(x: Tensor, number: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add(0, number, x)[number]


def _group_least(x: Tensor, number: Tensor) -> Tensor:
    return torch.full_like(x, torch.inf).scatter_reduce(0, number, x, "amin")[number]


def _centred(x: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """[B] x minus the mean of its group, and the group's size; in float64.

    Means are of differences to the group's least x, so equal x are exactly 0, however large.
    """
    x = x.double()
    above = x - _group_least(x, number)
    count = _group_sum(torch.ones_like(x), number)
    return above - _group_sum(above, number) / count, count


def group_mean(x: Tensor, group: Tensor) -> Tensor:
    """[B] mean of x [B] over all rows with the same number in group [B]; of equal x, x itself."""
    return (x.double() - _centred(x, _numbers(group))[0]).to(x)


def group_advantage(x: Tensor, group: Tensor, smallest: float | None = None) -> Tensor:
    """[B] x - mean over the row's group, divided by (deviation + smallest) unless that is None.

    In float64 until the end; exactly 0 where all of a group are equal.
    """
    number = _numbers(group)
    centred, count = _centred(x, number)
    if smallest is None:
        return centred.to(x)
    variance = _group_sum(centred**2, number) / (count - 1).clamp(min=1)
    return (centred / (variance.sqrt() + smallest)).to(x)


def group_deviation(x: Tensor, group: Tensor) -> Tensor:
    """[B] standard deviation (n - 1) of x over the row's group; 0 for a row alone."""
    number = _numbers(group)
    centred, count = _centred(x, number)
    return (_group_sum(centred**2, number) / (count - 1).clamp(min=1)).sqrt().to(x)


def leave_one_out(x: Tensor, group: Tensor) -> Tensor:
    """[B] x minus the mean of x over the other rows of its group; 0 for a row alone.

    Exactly 0 where all of a group are equal.
    """
    centred, count = _centred(x, _numbers(group))
    return (centred * count / (count - 1).clamp(min=1)).to(x)


def kl_k1(log_ratio: Tensor) -> Tensor:
    """k1 = log pi - log pi_ref of the sampled token; unbiased, may be negative."""
    return log_ratio


def kl_k3(log_ratio: Tensor) -> Tensor:
    """k3 = exp(-d) - 1 + d of the sampled token, d = log pi - log pi_ref; never negative."""
    return torch.expm1(-log_ratio) + log_ratio


KL_ESTIMATORS: Mapping[str, Callable[[Tensor], Tensor]] = {"k1": kl_k1, "k3": kl_k3}
