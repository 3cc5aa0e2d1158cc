"""How the bodies of models are run: one look-up of the embedding, rows behind shared prompts.

Values and gradients are compared with transformers itself on one unpadded row after the other.
"""

from __future__ import annotations

import pytest
import torch
from family_models import NAMED, VOCABULARY, build
from plain_scores import plain_rows
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DogeConfig, DogeForCausalLM

from alignzoo import Item, PairBatch, TextBatch, Tokens
from alignzoo.engine.models.prefixes import shares_prompts
from alignzoo.engine.scoring.packing import Packer, Reader, batches_of
from alignzoo.engine.scoring.scorer import ScoringModule, Special, dense
from alignzoo.ops import log_prob

SMALL = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48} | {
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
LENGTHS = (40, 39, 20, 19, 9)  # three groups
READING_IDS = ("gemma3n_text", "gemma4_text", "gemma3", "qwen2_5_vl")  # per layer, or for images
SCALING = ("gemma", "granite", "bloom", "gpt2")  # what was looked up, with positions or a norm


class LookUps(TorchDispatchMode):
    """Counts the gradients [V, H] of embeddings."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.embedding_dense_backward.default:
            self.n += args[2] == VOCABULARY and args[0].shape[-1] == 64
        return func(*args, **(kwargs or {}))


def text(lengths=LENGTHS, prompt=4, low=10, high=400):
    noise = torch.Generator().manual_seed(0)
    ids = [tuple(torch.randint(low, high, (n,), generator=noise).tolist()) for n in lengths]
    return TextBatch.collate([Item((Tokens(x[:prompt], x[prompt:]),)) for x in ids], 0)


def gradients(model):
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("name", [*READING_IDS, *SCALING])
def test_one_look_up_for_all_passes_gives_what_single_rows_give(name):
    model, batch = build(NAMED[name], 1).double().eval(), text()
    expected = plain_rows(model, batch)
    expected.sum().backward()
    by_row = gradients(model)
    found = ScoringModule({"policy": model}, frozenset({"policy"}), dense)
    rows = found(batch, {"x": log_prob("policy")})["x"]
    with LookUps() as seen:
        rows.sum().backward()
    once = gradients(model)
    torch.testing.assert_close(rows, expected, rtol=1e-6, atol=1e-5)
    assert once.keys() == by_row.keys()
    for parameter in once:
        torch.testing.assert_close(once[parameter], by_row[parameter], rtol=1e-4, atol=1e-4)
    assert seen.n == {"gemma3n_text": 1 + 3}.get(name, 1)  # those per layer are as wide, by pass


# --- prompts that are read once -------------------------------------------------------------------

SHARING = ("llama", "gpt2", "cohere", "deepseek_v3", "mixtral", "qwen2_5_vl", "granite", "opt")
SHARES = Reader(64, shares=True)
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


def ids(n, noise):
    return tuple(torch.randint(10, 400, (n,), generator=noise).tolist())


def pairs(prompts=(40, 35), answers=((12, 20), (17, 9)), view=None):
    """Two rows of every prompt; `view` has other prompts for the same answers."""
    noise = torch.Generator().manual_seed(1)
    items = []
    for n, sizes in zip(prompts, answers, strict=True):
        prompt, other = ids(n, noise), ids(n + 3, noise)
        rows = tuple(Tokens(prompt, ids(m, noise)) for m in sizes)
        views = {view: tuple(Tokens(other, row.response) for row in rows)} if view else {}
        items.append(Item(rows, views=views))
    return PairBatch.collate(items, 0)


def groups(prompt=40, answers=(9, 14, 3, 22, 1, 30)):
    noise = torch.Generator().manual_seed(2)
    asked = [ids(prompt, noise), ids(prompt, noise)]
    rows = [Tokens(asked[k % 2], ids(n, noise)) for k, n in enumerate(answers)]
    return TextBatch.collate([Item((row,)) for row in rows], 0)


def mixed():
    """A pair in one pass with a row that stands alone, which is shorter than the pair together."""
    noise = torch.Generator().manual_seed(3)
    prompt = ids(40, noise)
    rows = [Tokens(prompt, ids(30, noise)), Tokens(ids(60, noise), ids(35, noise))]
    return TextBatch.collate([Item((row,)) for row in (*rows, Tokens(prompt, ids(29, noise)))], 0)


def passes_of(batch, reader=SHARES):
    return Packer(batch)(None, batch.attention.any(-1), reader).passes


def columns(batch):
    """Of all passes of a model that shares prompts."""
    passes = passes_of(batch)
    return sum(one.ids.numel() for one in passes)


def scored(model, batch):
    return ScoringModule({"policy": model}, frozenset({"policy"}), dense)(
        batch, {"x": log_prob("policy")}
    )["x"]


@pytest.mark.parametrize("batch", [pairs(), groups(), mixed()], ids=["pairs", "groups", "mixed"])
@pytest.mark.parametrize("name", SHARING)
def test_answers_behind_one_prompt_are_scored_as_rows_of_their_own(name, batch):
    model = build(NAMED[name], 1).eval()
    if name not in EXPERTS:
        model.double()
    expected, rows = plain_rows(model, batch), scored(model, batch)
    weights = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0))
    (expected * weights).sum().backward()
    by_row = gradients(model)
    (rows * weights).sum().backward()
    shared = gradients(model)
    assert columns(batch) < 0.9 * int(batch.attention.sum())
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)
    assert shared.keys() == by_row.keys()
    for parameter in shared:
        torch.testing.assert_close(shared[parameter], by_row[parameter], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ALONE, ids=ALONE.get)
def test_a_model_whose_attention_does_not_allow_it_never_shares_a_prompt(name):
    model, batch = build(NAMED[name], 1).eval(), pairs()
    assert not shares_prompts(model)
    with torch.no_grad():
        torch.testing.assert_close(
            scored(model, batch), plain_rows(model, batch), atol=1e-4, rtol=0
        )


def test_a_model_that_chooses_what_far_tokens_see_never_shares_a_prompt():
    config = DogeConfig(**SMALL, num_hidden_layers=1, keep_window_size=64)
    assert not shares_prompts(DogeForCausalLM(config).eval())


def test_a_role_behind_a_view_shares_the_prompts_of_the_view():
    model, batch = build(NAMED["llama"], 1).double().eval(), pairs(view="told")
    module = ScoringModule({"policy": model}, frozenset(), dense, Special(sees={"policy": "told"}))
    found = module(batch, {"x": log_prob("policy")})["x"]
    expected = plain_rows(model, batch.views["told"])
    torch.testing.assert_close(found[batch.mask], expected[batch.views["told"].mask])
    assert columns(batch.views["told"]) < int(batch.views["told"].attention.sum())


def test_short_prompts_and_small_savings_are_not_worth_a_mask():
    for batch in (pairs(prompts=(31, 31)), pairs((40, 40), ((80, 80), (80, 80)))):
        passes = passes_of(batch)
        assert all(one.mask is None for one in passes)
        assert sum(len(one.ids) for one in passes) == 4


def test_no_row_grows_so_long_that_attention_costs_more_than_its_prompt():
    batch = groups(prompt=300, answers=(100,) * 40)  # 20 behind each of two prompts
    passes = passes_of(batch)
    assert max(one.ids.shape[1] for one in passes) == 300 + 11 * 100


def test_a_router_that_is_balanced_counts_every_token_of_every_row():
    model, batch = build(NAMED["mixtral"], 1).eval(), pairs()
    module = ScoringModule({"policy": model}, frozenset({"policy"}), dense)
    rows = module(batch, {"x": log_prob("policy")}, frozenset({"policy"}))
    assert set(rows) == {"x", "router/policy"}
    assert (rows["router/policy"] > 0).equal(batch.attention)


def test_rows_of_one_prompt_come_together_and_others_by_length():
    assert batches_of([5, 9, 7, 9], range(4), 3) == [[1, 3, 2], [0]]
    assert batches_of([5, 9, 7, 9], ["p", "p", "q", "r"], 2) == [[1, 0], [3, 2]]
    assert batches_of([4, 3, 2, 9, 1], ["p", "p", "p", "q", "r"], 3) == [[3], [0, 1, 2], [4]]
    assert batches_of([4, 3, 2, 1], "pppp", 3) == [[0, 1, 2], [3]]


@pytest.mark.parametrize("batch", [text(), pairs(), groups(), mixed()])
@pytest.mark.parametrize("name", ["llama", "mistral"])  # the second shares no prompts
def test_the_padding_that_is_logged_is_that_of_the_passes_that_were_run(name, batch):
    model = build(NAMED[name], 1).eval()
    module = ScoringModule({"policy": model}, frozenset({"policy"}), dense)
    every = torch.ones(len(batch.ids), dtype=torch.bool)
    hidden = module.bodies("policy", Packer(batch), every, balanced=False)
    used, columns = len(hidden.slots[batch.attention].unique()), len(hidden.states)
    found = module.padding_in(Packer(batch), [range(len(batch.ids))])
    assert found == pytest.approx([1 - used / columns])


def test_models_that_share_prompts_pack_a_batch_once():
    batch, seen = pairs(), []
    models = {name: build(NAMED["llama"], 1).eval() for name in ("policy", "reference")}
    module = ScoringModule(models, frozenset(), dense)
    for model in models.values():
        model.model.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs.get("attention_mask")), with_kwargs=True
        )
    module(batch, {name: log_prob(name) for name in models})
    masks = [mask for mask in seen if mask is not None and mask.shape[-1] > 20]
    assert len(masks) == 2 and masks[0] is masks[1]
