"""0 times minus infinity is 0: tokens of probability exactly 0 in every divergence and entropy.

Expected values and gradients are sums over the tokens of positive probability alone, in float64.
"""

import math

import pytest
import torch
from alignzoo_aligndistil import AlignDistil
from alignzoo_gkd import GKD
from hypothesis import given, settings
from hypothesis import strategies as st

from alignzoo import ops

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
logit = st.floats(-8, 8)
impossible = st.just(-math.inf)
rows = st.lists(st.tuples(logit, logit, st.integers(0, 3)), min_size=2, max_size=9)


def logits_of(drawn, absolutely=False):
    """Logits of p and q, -inf in some places (3: in both; with `absolutely` never in q alone)."""
    never = {
        1: (True, False),
        2: (not absolutely, not absolutely),
        3: (True, True),
        0: (False,) * 2,
    }
    drawn = [(0.5, -0.5, 0), *drawn]  # something stays possible
    return tuple(
        torch.tensor([[-math.inf if never[n][k] else x[k] for *x, n in drawn]]).double()
        for k in (0, 1)
    )


def distribution(logits):
    """Probabilities of the possible tokens by their place, without a logarithm of 0 anywhere."""
    at = [v for v, x in enumerate(logits[0].tolist()) if x > -math.inf]
    chances = logits[0, at].softmax(-1)
    return {v: chances[n] for n, v in enumerate(at)}


def kl_of(p, q):
    return sum(x * (x / q[v]).log() for v, x in p.items())


def jsd_of(p, q, beta):
    m = {v: beta * p.get(v, 0.0) + (1 - beta) * q.get(v, 0.0) for v in p | q}
    return beta * kl_of(p, m) + (1 - beta) * kl_of(q, m)


def tvd_of(p, q):
    nothing = torch.zeros(())
    return sum((p.get(v, nothing) - q.get(v, nothing)).abs() for v in p | q) / 2


DIVERGENCES = {
    "kl": (ops.kl_divergence, kl_of),
    "jsd": (lambda p, q: ops.jsd(p, q, 0.3), lambda p, q: jsd_of(p, q, 0.3)),
    "tvd": (ops.total_variation, tvd_of),
    "entropy": (lambda p, q: ops.entropy_of(p), lambda p, q: -sum(x * x.log() for x in p.values())),
}


def differentiated(function, *logits):
    leaves = [x.clone().requires_grad_() for x in logits]
    value = function(*leaves)
    grads = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    grads = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]
    return value.detach().double().reshape(()), torch.cat(grads).double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", DIVERGENCES)
@few
@given(drawn=rows)
def test_a_token_of_probability_zero_adds_nothing_to_value_and_gradient(name, dtype, drawn):
    ours, reference = DIVERGENCES[name]
    logits = logits_of(drawn, absolutely=name == "kl")
    got = differentiated(
        lambda p, q: ours(ops.log_softmax(p), ops.log_softmax(q)), *(x.to(dtype) for x in logits)
    )
    right = differentiated(lambda p, q: reference(distribution(p), distribution(q)), *logits)
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-5}[dtype]
    for mine, expected in zip(got, right, strict=True):
        assert torch.allclose(mine, expected, rtol=tolerance, atol=tolerance), (mine, expected)


@pytest.mark.parametrize("likely", [0.0, -300.0])  # exp(-300) is 0 in float32, but not impossible
def test_a_divergence_to_a_distribution_that_forbids_a_possible_token_is_infinite(likely):
    p, q = torch.tensor([[1.0, likely]]), torch.tensor([[1.0, -math.inf]])
    p, q = ops.log_softmax(p), ops.log_softmax(q)
    assert ops.kl_divergence(p, q).tolist() == [math.inf]
    assert ops.kl_divergence(q, p).isfinite().all()
    assert ops.jsd(p, q, 0.5).isfinite().all()


@few
@given(drawn=rows)
def test_numbers_without_a_zero_are_those_of_the_plain_formula_bit_for_bit(drawn):
    p, q = (torch.tensor([[x[k] for x in drawn]]).log_softmax(-1) for k in (0, 1))
    assert torch.equal(ops.kl_divergence(p, q), (p.exp() * (p - q)).sum(-1))
    assert torch.equal(ops.entropy_of(p), -(p.exp() * p).sum(-1))


# --- methods with formulas of their own: a vocabulary with impossible tokens is one without them


def padded(logits, n=3):
    return torch.nn.functional.pad(logits, (0, n), value=-math.inf)


def rows_of(method, outputs):
    leaves = {k: x.clone().requires_grad_(k == "policy") for k, x in outputs.items()}
    found = method.rows(leaves, torch.tensor([0, 1]))
    sum(x.sum() for x in found.values() if x.requires_grad).backward()
    return {k: x.detach() for k, x in found.items()}, leaves["policy"].grad


@pytest.mark.parametrize(
    "method",
    [
        AlignDistil(r=5.0),
        AlignDistil(r=5.0, reward="vanilla", temperature=2.0),
        AlignDistil(reward="vanilla", extrapolation="constant", beta=0.1),
        *(GKD(divergence=name) for name in ("forward", "reverse", "jsd")),
    ],
    ids=repr,
)
def test_a_distillation_over_impossible_tokens_equals_one_over_the_others(method):
    chance = torch.Generator().manual_seed(3)
    short = {
        r: torch.randn(2, 5, generator=chance).double() for r in ("policy", "teacher", "anchor")
    }
    want, want_grad = rows_of(method, short)
    got, grad = rows_of(method, {role: padded(x) for role, x in short.items()})
    for name, x in want.items():
        assert torch.allclose(got[name], x, rtol=0, atol=1e-12), name
    assert torch.allclose(grad, padded(want_grad).masked_fill(padded(want_grad).isinf(), 0.0))


def test_aligndistil_says_infinity_where_only_the_anchor_forbids_a_token():
    one = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    outputs = {"policy": one, "teacher": 2 * one, "anchor": one.clone()}
    outputs["anchor"][0, 2] = -math.inf
    kl = AlignDistil(r=5.0).rows(outputs, torch.tensor([0, 1]))["kl"].tolist()
    assert kl[0] == math.inf and math.isfinite(kl[1])
    # Interpolation with a weight below 1 forbids it too.
    short = {role: x[:1, :2] for role, x in outputs.items()}
    vanilla = AlignDistil(reward="vanilla", extrapolation="constant", beta=0.2)
    forbidden = {role: x[:1] for role, x in outputs.items()}
    forbidden["policy"] = padded(short["policy"], 1)
    got = vanilla.rows(forbidden, torch.tensor([0]))["kl"]
    dpo, anchor = (short[r].log_softmax(-1) for r in ("teacher", "anchor"))
    target = (0.5 * dpo + 0.5 * anchor).log_softmax(-1)
    student = short["policy"].log_softmax(-1)
    assert got.item() == pytest.approx((student.exp() * (student - target)).sum().item(), abs=1e-6)
