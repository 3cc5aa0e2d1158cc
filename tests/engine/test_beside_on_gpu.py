"""The kernel for rows side by side, against plain transformers on the same GPU, seconds in all."""

from __future__ import annotations

import pytest
import torch
from plain_scores import plain_rows
from transformers import Qwen2Config, Qwen2ForCausalLM

from alignzoo import Item, TextBatch, Tokens
from alignzoo.engine.models.beside import joins_rows, kernel_takes
from alignzoo.engine.scoring.scorer import ScoringModule, dense
from alignzoo.ops import log_prob

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
LENGTHS = (200, 130, 64, 37, 9, 2)


@pytest.fixture
def model():
    """Heads of 20 numbers, two to a key: padded and repeated."""
    torch.manual_seed(0)
    size = {"vocab_size": 400, "hidden_size": 80, "intermediate_size": 160}
    size |= {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    return Qwen2ForCausalLM(Qwen2Config(**size, initializer_range=0.1)).to("cuda").eval()


@pytest.fixture
def batch():
    noise = torch.Generator().manual_seed(0)
    rows = [tuple(torch.randint(10, 400, (n + 1,), generator=noise).tolist()) for n in LENGTHS]
    return TextBatch.collate([Item((Tokens(x[:1], x[1:]),)) for x in rows], 0).to("cuda")


def bf16():
    return torch.autocast("cuda", torch.bfloat16)


def scored(model, batch):
    scoring = ScoringModule({"policy": model}, frozenset({"policy"}), dense)
    return scoring(batch, {"x": log_prob("policy")})["x"]


def made(model, batch, by):
    """Rows, and the gradient of all parameters in one."""
    rows = by(model, batch)
    weights = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0)).cuda()
    (rows * weights).sum().backward()
    gradient = torch.cat([p.grad.float().flatten() for p in model.parameters()])
    model.zero_grad(set_to_none=True)
    return rows.detach(), gradient


def off(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_rows_side_by_side_are_as_near_to_float32_as_rows_alone(model, batch):
    exact = made(model, batch, plain_rows)
    with bf16():
        assert kernel_takes(model) and joins_rows(model)
        seen = []
        embedding = model.get_input_embeddings()
        hook = embedding.register_forward_hook(lambda _, given, out: seen.append(given[0].shape))
        joined = made(model, batch, scored)
        hook.remove()
        alone = made(model, batch, plain_rows)
    assert seen[-1] == (1, sum(LENGTHS) + len(LENGTHS))
    for found, usual, right in zip(joined, alone, exact, strict=True):
        assert off(found, right) < 1.5 * off(usual, right) < 0.1


def test_the_same_rows_give_the_same_bits_again_on_a_gpu(model, batch):
    with bf16():
        first, again = (made(model, batch, scored) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))


def test_weights_in_bf16_join_their_rows_without_autocast(model, batch):
    assert not kernel_takes(model)  # float32
    half = model.bfloat16()
    assert kernel_takes(half) and joins_rows(half)
    with torch.no_grad():
        assert off(scored(half, batch), plain_rows(half, batch).float()) < 0.01
