"""Heads: what a family does to its logits is applied exactly, or the model is refused."""

from __future__ import annotations

import math

import pytest
import torch
from family_models import NAMED, build, save
from torch.nn.functional import linear
from transformers import (
    Cohere2ForCausalLM,
    Gemma2ForCausalLM,
    GraniteForCausalLM,
    LlamaForCausalLM,
    MambaForCausalLM,
)

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import AlignzooError, PluginError
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import Item, TextBatch, Tokens
from alignzoo.engine.models.heads import Head, Transform, body_of, check_head, head_of
from alignzoo.engine.models.load import load_model
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.measure import sequence_log_probs
from alignzoo.engine.scoring.rows import dense
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.ops import log_prob
from alignzoo.recipe.registry import load_plugins

ROW = Tokens((20, 30, 40), (50, 60, 70, 80, 1))
CHANGED = [
    ("gemma2", Gemma2ForCausalLM, lambda x: 5 * torch.tanh(x / 5)),
    ("granite", GraniteForCausalLM, lambda x: x / 3),
    ("cohere2", Cohere2ForCausalLM, lambda x: x * 0.25),
    ("llama", LlamaForCausalLM, lambda x: x),
]


def load(folder, role=None, **ref):
    return load_model(load_plugins().hooks, ModelRef(str(folder), **ref), role or Role())


def test_a_transform_scales_before_it_caps():
    x = torch.tensor([-8.0, 0.0, 2.0])
    expected = [3 * math.tanh(v * 0.5 / 3) for v in x.tolist()]
    assert Transform(factor=0.5, cap=3.0)(x).tolist() == pytest.approx(expected)
    assert Transform(divisor=4.0)(x).tolist() == [-2.0, 0.0, 0.5]


def test_a_plain_linear_head_is_the_product_and_nothing_else():
    layer, hidden = torch.nn.Linear(16, 9), torch.randn(5, 16)
    assert torch.equal(Head(layer)(hidden), linear(hidden, layer.weight, layer.bias))
    assert head_of(build(NAMED["qwen2"], 0)).transform == Transform()


@pytest.mark.parametrize(("name", "cls", "after"), CHANGED, ids=[name for name, *_ in CHANGED])
def test_capped_and_scaled_logits_are_those_of_the_model_itself(name, cls, after, tmp_path):
    model = load(save(NAMED[name], 1, tmp_path))
    assert isinstance(model, cls)
    ids = torch.tensor([[*ROW.prompt, *ROW.response]])
    with torch.no_grad():
        hidden = body_of(model)(input_ids=ids, use_cache=False).last_hidden_state
        own = cls.from_pretrained(tmp_path).eval()(input_ids=ids, use_cache=False).logits
        assert torch.allclose(head_of(model)(hidden), own, atol=1e-6)
        assert torch.allclose(after(model.get_output_embeddings()(hidden)), own, atol=1e-6)


@pytest.mark.parametrize("scorer", [dense, Fused(1, smallest=2, small=0)], ids=["dense", "fused"])
def test_every_scorer_applies_the_cap(scorer):
    model = build(NAMED["gemma2"], 1).eval()
    batch = TextBatch.collate([Item((ROW,))], 0)
    with torch.no_grad():
        grid = ScoringModule({"m": model}, frozenset(), scorer)(batch, {"x": log_prob("m")})["x"]
        steps = model(input_ids=batch.ids, use_cache=False).logits[0].log_softmax(-1)
    right = [steps[p + 2, token].item() for p, token in enumerate(ROW.response)]
    assert grid[0][batch.mask[0]].tolist() == pytest.approx(right, abs=1e-5)


def test_a_change_of_the_logits_that_no_config_names_is_refused():
    model = build(NAMED["llama"], 0)
    for change in (lambda x: x + x.sign(), lambda x: 30 * torch.tanh(x / 30), lambda x: x[..., 1:]):
        model.forward = _changed(model, change)
        with pytest.raises(PluginError, match="in a way that is not known; supported are"):
            check_head(model)
        del model.forward


def test_a_cap_is_found_in_bfloat16_where_rounding_is_larger_than_it():
    model = build(NAMED["llama"], 0).to(torch.bfloat16)
    model.forward = _changed(model, lambda x: 50 * torch.tanh(x / 50))  # moves logits by 1e-3
    with pytest.raises(PluginError, match="in a way that is not known"):
        check_head(model)


def test_a_body_that_depends_on_ids_beyond_the_first_four_is_compared_on_them():
    model = build(NAMED["llama"], 0)
    plain = model.model.forward

    def other_way(input_ids, **kwargs):
        if model.model.training is None:  # only when the whole model runs
            input_ids = torch.where(input_ids > 400, 5, input_ids)
        return plain(input_ids=input_ids, **kwargs)

    def whole(*args, **kwargs):
        model.model.training = None
        out = type(model).forward(model, *args, **kwargs)
        model.model.training = False
        return out

    model.model.forward, model.forward = other_way, whole
    with pytest.raises(PluginError, match="in a way that is not known"):
        check_head(model)


def _changed(model, change):
    def forward(*args, **kwargs):
        out = type(model).forward(model, *args, **kwargs)
        out.logits = change(out.logits)
        return out

    return forward


def test_float32_logits_of_a_bfloat16_model_are_no_reason_to_refuse_it(tmp_path):
    model = load(save(NAMED["mamba"], 1, tmp_path)).to(torch.bfloat16)
    assert isinstance(model, MambaForCausalLM) and model.dtype == torch.bfloat16
    check_head(model)


def test_checking_leaves_modes_and_hooks_as_they_were():
    model = build(NAMED["gemma2"], 0).train()
    model.model.layers[0].eval()
    check_head(model)
    assert model.training and not model.model.layers[0].training
    assert not model.lm_head._forward_hooks


def test_a_family_whose_body_is_not_named_is_trained_all_the_same(tmp_path):
    model = load(save(NAMED["llama4_text"], 1, tmp_path))
    assert model.base_model is model and body_of(model) is model.model
    ids = torch.tensor([[*ROW.prompt, *ROW.response]])
    with torch.no_grad():
        steps = model.eval()(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    right = [steps[p + 2, token].item() for p, token in enumerate(ROW.response)]
    assert sequence_log_probs(model, [ROW], 0)[0] == pytest.approx(right, abs=1e-5)


def test_a_family_without_a_scalar_head_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(AlignzooError) as refusal:
        load(save(NAMED["granite"], 1, tmp_path), Role(trainable=True, head="scalar"))
    assert str(refusal.value).endswith(
        "transformers has no scalar head for the family 'granite'; use a reward function, or a "
        "method without a critic"
    )


def test_a_model_that_cannot_run_on_text_alone_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(PluginError) as refusal:
        load(save(NAMED["llama4"], 1, tmp_path))
    assert "cannot be run on text alone" in str(refusal.value)
    assert "\n" not in str(refusal.value)
