"""On a GPU the scorer multiplies in bfloat16 where a recipe says so, and nowhere else."""

import pytest
import torch
from torch import nn

from alignzoo.engine.models.heads import Head
from alignzoo.engine.scoring.fused import Fused
from alignzoo.ops import kl, log_prob

N, H, V = 300, 64, 1000
SIGNALS = {"kl": kl("policy", "teacher"), "lp": log_prob("teacher")}

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


class Told:
    """The true upstream."""

    def __init__(self, pays):
        self.answer = pays

    def pays(self, chunks):
        return self.answer

    def missed(self):
        raise AssertionError

    def __call__(self, at, rows, learn):
        return {name: torch.full_like(rows[name], 0.3) for name in learn}


def drawn(dtype):
    """States and weights that bfloat16 can hold, so that rounding them again changes nothing."""
    chance = torch.Generator().manual_seed(0)
    base = torch.randn(V, H, generator=chance)
    weights, states = {}, {}
    for role in ("policy", "teacher"):
        weight = (base + 0.3 * torch.randn(V, H, generator=chance)) * 4 * H**-0.5
        weights[role] = weight.bfloat16().to("cuda", dtype)
        states[role] = torch.randn(N, H, generator=chance).bfloat16().to("cuda", dtype)
    return weights, states


def scored(dtype, mixed=False, pays=True, scorer=None):
    """Rows, and gradients of the policy's states and head."""
    weights, states = drawn(dtype)
    heads = {}
    for role, weight in weights.items():
        linear = nn.Linear(H, V, bias=True, device="cuda", dtype=dtype)
        linear.weight.data.copy_(weight)
        linear.bias.data.fill_(0.5)
        heads[role] = Head(linear.requires_grad_(role == "policy"))
    states["policy"].requires_grad_()
    labels = torch.arange(N, device="cuda") % V
    scorer = scorer or Fused(budget=1, small=0)
    with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        rows = scorer(states, heads, labels, SIGNALS, Told(pays))
    (0.3 * rows["kl"].sum()).backward()
    own = heads["policy"].linear
    grads = {"h": states["policy"].grad, "w": own.weight.grad, "b": own.bias.grad}
    return {**{name: x.detach() for name, x in rows.items()}, **grads}


def error(found, right):
    return {n: ((found[n] - x).norm() / x.norm()).item() for n, x in right.items()}


@pytest.mark.parametrize("pays", [True, False], ids=["ahead", "two-phase"])
@pytest.mark.parametrize(
    ("dtype", "mixed"), [(torch.bfloat16, False), (torch.float32, True)], ids=["bf16", "mixed"]
)
def test_logits_of_narrow_factors_are_float32_and_their_gradient_is_rounded_once(
    dtype, mixed, pays
):
    right = scored(torch.float64)
    found = scored(dtype, mixed, pays)
    assert found["kl"].dtype == torch.float32 and found["w"].dtype == dtype
    apart = error(found, right)
    assert max(apart["kl"], apart["lp"]) < 2e-6
    assert max(apart[name] for name in ("h", "w", "b")) < 4e-3


@pytest.mark.parametrize("pays", [True, False], ids=["ahead", "two-phase"])
def test_float32_recipes_stay_float32(pays):
    assert max(error(scored(torch.float32, pays=pays), scored(torch.float64)).values()) < 3e-6


def test_few_positions_are_rounded_as_many_are():
    few, many = (scored(torch.float32, True, scorer=Fused(small=n)) for n in (2**40, 0))
    for name, x in many.items():
        assert torch.equal(few[name], x)
