"""Weights rounded once a call: the samples that autocast gives, and the model as it was."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from family_models import NAMED, build

from alignzoo.contract.rollout import Sampling, sample_key
from alignzoo.engine.memory.live import COPIES, Live
from alignzoo.engine.memory.sampling import Decoding, sample
from alignzoo.engine.memory.walk import Alone
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.sampling import rounded as rounding
from alignzoo.engine.sampling.generate import TransformersSession
from alignzoo.engine.sampling.rounded import rounded
from alignzoo.engine.sampling.ways import Way

PROMPTS = [(20, 21, 22), (30,), (20, 21, 22), (5, 6, 7, 8, 9)]
KEYS = [sample_key(n) for n in range(len(PROMPTS))]


def sampled(model, captured=False):
    session = TransformersSession(model, 256, Way(stepped=True, captured=captured))
    with torch.autocast("cpu", torch.bfloat16):
        done = session.generate(PROMPTS, Sampling(8), KEYS)
    return [(c.ids, c.log_probs) for c in done]


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "deepseek_v3", "mixtral"])
@pytest.mark.parametrize("captured", [False, True])
def test_samples_are_bit_for_bit_those_of_autocast(name, captured, monkeypatch):
    model = build(NAMED[name], 0).eval()
    found = sampled(model, captured)
    monkeypatch.setattr(rounding, "rounded", lambda model: nullcontext())
    assert sampled(model, captured) == found


def test_a_frozen_layer_is_rounded_once_and_not_at_every_step(monkeypatch):
    model, seen = build(NAMED["qwen2"], 0).eval().requires_grad_(False), []
    layer, linear = model.model.layers[0].mlp.down_proj, torch.nn.functional.linear

    def noted(x, weight, bias=None):
        if weight.shape == layer.weight.shape:
            seen.append((weight.dtype, weight.data_ptr()))
        return linear(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", noted)
    sampled(model)
    layers = len(model.model.layers)
    assert len(seen) == 8 * layers and len(set(seen)) == layers
    assert seen[0][0] == torch.bfloat16


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_has_its_own_weights_again_afterwards(fails):
    model = build(NAMED["qwen2"], 0).eval()
    before = dict(model.named_parameters())
    with (
        pytest.raises(RuntimeError) if fails else nullcontext(),
        torch.autocast("cpu", torch.bfloat16),
        rounded(model),
    ):
        inside = dict(model.named_parameters())
        if fails:
            raise RuntimeError
    changed = {name for name, x in inside.items() if x is not before[name]}
    assert {inside[name].dtype for name in changed} == {torch.bfloat16}
    assert "model.layers.0.self_attn.q_proj.weight" in changed
    assert not {name for name in changed if "norm" in name or "embed" in name or "head" in name}
    after = dict(model.named_parameters())
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)


def test_in_full_precision_nothing_is_copied():
    model = build(NAMED["qwen2"], 0).eval()
    before = dict(model.named_parameters())
    with rounded(model):
        assert all(x is before[name] for name, x in model.named_parameters())


def test_the_plan_counts_what_is_rounded_of_frozen_models_too():
    model = build(NAMED["qwen2"], 0).eval().requires_grad_(False)
    linear = [m for m in model.modules() if type(m) is torch.nn.Linear and m is not model.lm_head]
    with Live() as live:
        live.mark(model.parameters(), "weights")
        live.shapes = {m.weight.shape for m in linear}
        sample({"policy": model}, Decoding(2, 3, Sampling(4)), Ranks(Alone("bf16")), live)
    copied = live.peaks["all"].bytes[COPIES]
    assert copied == 2 * sum(m.weight.numel() for m in linear)
