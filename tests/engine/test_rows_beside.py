"""Rows side by side in one row of a model, without padding.

The kernel needs a GPU (`test_beside_on_gpu.py`). Here a mask stands for it, and all else is the
same. Values and gradients are compared with transformers itself on one unpadded row after another.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from family_models import NAMED, build
from plain_scores import plain_rows
from transformers import AttentionInterface

from alignzoo import Item, PairBatch, TextBatch, Tokens
from alignzoo.engine.models import beside as module
from alignzoo.engine.models.beside import joins_rows
from alignzoo.engine.models.families import checkpoint_activations
from alignzoo.engine.scoring import bodies
from alignzoo.engine.scoring.packing import LAUNCHES, Packer, Reader
from alignzoo.engine.scoring.scorer import ScoringModule, Special, dense
from alignzoo.ops import log_prob

JOINING = ("llama", "qwen2", "gpt2", "cohere", "deepseek_v3", "mixtral", "granite", "opt")
EXPERTS = ("deepseek_v3", "mixtral")  # are multiplied in no wider numbers than float32
ALONE = {
    "qwen2 window": "a sliding window",
    "gemma3": "windows in some layers, in the text of a wrapper",
    "llama4_text": "chunks",
    "qwen3_next": "linear attention",
    "mamba": "a state-space model",
    "lfm2": "convolutions",
    "falcon alibi": "distances counted along the row",
    "bloom": "eager attention with its own bias",
}


@pytest.fixture(autouse=True)
def with_a_kernel(monkeypatch):
    """Every device is taken for one that has the kernel."""
    monkeypatch.setattr(bodies, "kernel_takes", lambda model: True)


def ids(n, noise):
    return tuple(torch.randint(10, 400, (n,), generator=noise).tolist())


def text(lengths=(30, 9, 17, 2)):
    noise = torch.Generator().manual_seed(0)
    return TextBatch.collate([Item((Tokens(ids(1, noise), ids(n, noise)),)) for n in lengths], 0)


def pairs(prompt=8, answers=(12, 20), view=None):
    noise = torch.Generator().manual_seed(1)
    items = []
    for _ in range(2):
        asked, other = ids(prompt, noise), ids(prompt + 3, noise)
        rows = tuple(Tokens(asked, ids(n, noise)) for n in answers)
        views = {view: tuple(Tokens(other, row.response) for row in rows)} if view else {}
        items.append(Item(rows, views=views))
    return PairBatch.collate(items, 0)


def scored(model, batch, sees=None, learns=("policy",)):
    special = Special(sees={"policy": sees} if sees else {})
    scoring = ScoringModule({"policy": model}, frozenset(learns), dense, special)
    return scoring(batch, {"x": log_prob("policy")})["x"]


def gradients(model):
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def passes(batch, **kind):
    read = batch.attention.any(-1)
    return Packer(batch)(None, read, Reader(1536, joins=True, calls=LAUNCHES, **kind)).passes


@pytest.mark.parametrize("name", JOINING)
def test_rows_side_by_side_are_scored_as_rows_of_their_own(name):
    model, batch = build(NAMED[name], 1).eval(), text()
    if name not in EXPERTS:
        model.double()
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda _, given, out: seen.append(given[0]))
    rows = scored(model, batch)
    assert seen[-1].shape == (1, int(batch.attention.sum()))
    weights = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0))
    (rows * weights).sum().backward()
    joined = gradients(model)
    expected = plain_rows(model, batch)
    (expected * weights).sum().backward()
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)
    for parameter, gradient in gradients(model).items():
        torch.testing.assert_close(joined.pop(parameter), gradient, rtol=1e-4, atol=1e-4)
    assert not joined


@pytest.mark.parametrize("name", ALONE, ids=ALONE.get)
def test_a_model_whose_attention_does_not_allow_it_takes_its_rows_apart(name):
    model, batch = build(NAMED[name], 1).eval(), text()
    assert not joins_rows(model)
    with torch.no_grad():
        torch.testing.assert_close(
            scored(model, batch), plain_rows(model, batch), atol=1e-4, rtol=0
        )


def test_layers_that_are_computed_twice_see_the_same_rows_the_second_time():
    model, batch = build(NAMED["llama"], 2).double(), text()
    scored(model, batch).sum().backward()
    once = gradients(model)
    checkpoint_activations(model)
    calls = []
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    rows = scored(model, batch)
    before = len(calls)
    rows.sum().backward()
    twice = gradients(model)
    assert len(calls) == before + 1
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_the_same_rows_give_the_same_bits_again():
    model, batch = build(NAMED["qwen2"], 1).eval(), text()
    with torch.no_grad():
        assert torch.equal(scored(model, batch), scored(model, batch))


def test_a_role_behind_a_view_reads_the_rows_of_the_view_side_by_side():
    model, batch = build(NAMED["llama"], 1).double().eval(), pairs(view="told")
    found = scored(model, batch, sees="told", learns=())
    expected = plain_rows(model, batch.views["told"])
    torch.testing.assert_close(found[batch.mask], expected[batch.views["told"].mask])


def test_a_router_that_is_balanced_reads_rows_apart():
    model, batch = build(NAMED["mixtral"], 1).eval(), text()
    scoring = ScoringModule({"policy": model}, frozenset({"policy"}), dense)
    shape = Packer(batch).shape(None)
    assert not scoring.bodies.reader("policy", shape, balanced=True).joins
    assert scoring.bodies.reader("policy", shape, balanced=False).joins


def test_a_cpu_has_no_kernel_and_cuts_its_rows_into_passes():
    model = build(NAMED["llama"], 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert not module.kernel_takes(model)


def test_no_column_is_padding_and_the_metric_says_so():
    model, batch = build(NAMED["llama"], 1).eval(), text()
    scoring = ScoringModule({"policy": model}, frozenset({"policy"}), dense)
    assert scoring.padding_in(Packer(batch), [range(4), range(2)]) == [0.0, 0.0]


def test_a_prompt_is_shared_where_that_saves_more_than_padding_costs():
    few, many = pairs(40, (60, 60)), pairs(4000, (50, 60))
    assert [one.longest for one in passes(few, shares=True)] == [100]
    (one,) = passes(many, shares=True)
    assert one.edges is None and one.ids.shape == (2, 4110)
    (one,) = passes(many)
    assert one.edges.tolist() == [0, 4050, 8100, 12160, 16220]


def test_sharded_models_read_all_rows_in_one_pass_without_padding():
    (one,) = passes(text(), together=True)
    assert one.ids.numel() == int(text().attention.sum())


def test_attention_that_another_package_has_replaced_is_left_alone():
    model, ours = build(NAMED["llama"], 1).eval(), AttentionInterface()["sdpa"]
    AttentionInterface.register("sdpa", partial(ours))
    try:
        assert not joins_rows(model)
    finally:
        AttentionInterface.register("sdpa", ours)
    assert joins_rows(model)


def test_a_model_that_adds_a_bias_to_its_attention_is_refused_and_not_misread():
    q = torch.zeros(1, 2, 6, 8)
    told = {"cu_seq_lens_q": torch.tensor([0, 4, 6]), "max_length_q": 4}
    for odd in ({"position_bias": torch.zeros(1, 2, 6, 6)}, {"dropout": 0.1}):
        with pytest.raises(ValueError, match="no bias, no dropout"):
            module.attend(torch.nn.Module(), q, q, q, None, **told, **odd)


@pytest.mark.parametrize("grouped", [True, False])
def test_the_kernel_gets_heads_of_a_width_that_it_takes(monkeypatch, grouped):
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(9, *size, generator=noise) for size in ((4, 12), (2, 12), (2, 10)))

    def kernel(q, k, v, begins, ends, longest, longest_key, *, window_size, scale, **more):
        assert {x.shape[-1] % 8 for x in (q, k, v)} == {0} and window_size == (-1, 0)
        assert (k.shape[1] == q.shape[1]) != more.get("enable_gqa", False)
        assert longest == longest_key == 5 and begins is ends
        rows = []
        for i, j in begins.unfold(0, 2, 1).tolist():
            one = [x[i:j].transpose(0, 1) for x in (q, k, v)]
            more = {"is_causal": True, "scale": scale, "enable_gqa": True}
            rows.append(torch.nn.functional.scaled_dot_product_attention(*one, **more))
        return torch.cat(rows, 1).transpose(0, 1)

    monkeypatch.setattr(module, "varlen_attn", kernel)
    monkeypatch.setattr(module, "GROUPED", grouped)
    edges = torch.tensor([0, 5, 9], dtype=torch.int32)
    found = module._by_kernel([q, k, v], edges, 5, 12**-0.5)
    for i, j in ((0, 5), (5, 9)):
        keys, values = (x[i:j].repeat_interleave(2, 1) for x in (k, v))
        scores = torch.einsum("thd,shd->hts", q[i:j], keys) * 12**-0.5
        later = torch.ones(j - i, j - i, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        torch.testing.assert_close(found[i:j], torch.einsum("hts,shd->thd", weights, values))
