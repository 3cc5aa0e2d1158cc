"""No hidden noise in training: a model that learns is the function that is sampled and saved."""

from __future__ import annotations

import json

import pluggy
import pytest
import torch
from alignzoo_sft import SFT
from engine_jobs import job
from tokenizers import Tokenizer, models
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from alignzoo import TextBatch
from alignzoo.contract import hooks
from alignzoo.contract.algorithm import Role
from alignzoo.contract.stage import ModelRef
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.models.load import load_model, save_model
from alignzoo.engine.models.quiet import own_config, silence, switched_off
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.engine.train.loop import train
from alignzoo.ops import log_prob
from alignzoo.testing import toy_items

SMALL = {
    "vocab_size": 13,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 13, "n_positions": 64}
OPT = {"ffn_dim": 32, "word_embed_proj_dim": 16, "layerdrop": 0.5, "dropout": 0.4}
MPT = {"d_model": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 13, "max_seq_len": 64}
FALCON = {"num_kv_heads": 2, "hidden_dropout": 0.3, "attention_dropout": 0.2}
TEXT = {**SMALL, "head_dim": 8, "attention_dropout": 0.5}


def nested():
    """A vision model whose text config, not its own, holds the rate."""
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    vision |= {
        "out_hidden_size": 16,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=TEXT, vision_config=vision))


MAKE = {
    "attention_dropout": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, attention_dropout=0.5)),
    "layerdrop": lambda: OPTForCausalLM(OPTConfig(**SMALL, **OPT)),
    "router_jitter_noise": lambda: MixtralForCausalLM(
        MixtralConfig(**SMALL, num_local_experts=4, router_jitter_noise=0.5)
    ),
    "sampled experts": lambda: PhimoeForCausalLM(
        PhimoeConfig(**SMALL, num_local_experts=4, router_jitter_noise=0.01)
    ),
    "pdrop": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, bos_token_id=0, eos_token_id=1)),
    "read from config": lambda: FalconForCausalLM(FalconConfig(**SMALL, **FALCON)),
    "nested config": nested,
}
every_kind = pytest.mark.parametrize("kind", MAKE)


def made(kind):
    torch.manual_seed(3)
    return MAKE[kind]()


def scored(model, seed, learns):
    """Log-probabilities of toy answers, as a step (or a frozen role) computes them."""
    module = ScoringModule({"policy": model}, frozenset({"policy"} if learns else ()), Fused())
    torch.manual_seed(seed)
    return module(TextBatch.collate(toy_items(TextBatch, 6), 0), {"x": log_prob("policy")})["x"]


@every_kind
@pytest.mark.parametrize("recompute", [False, True], ids=["plain", "gradient checkpointing"])
def test_a_model_that_learns_is_the_same_function_every_time_and_when_frozen(kind, recompute):
    model = made(kind)
    silence(model)
    frozen = scored(model, 0, learns=False).detach()
    model.requires_grad_(True)
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    first, second = scored(model, 1, learns=True), scored(model, 2, learns=True)
    assert torch.equal(first, second)
    assert torch.allclose(first, frozen, atol=1e-6)
    first.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@every_kind
def test_these_models_are_noisy_without_that(kind):
    model = made(kind).train()
    ids = torch.arange(2, 12)[None]
    runs = []
    for seed in range(6):
        torch.manual_seed(seed)
        runs.append(model(input_ids=ids, use_cache=False).logits.detach())
    assert any(not torch.equal(runs[0], other) for other in runs[1:])


@every_kind
def test_the_saved_config_keeps_the_models_own_values(kind, tmp_path):
    model = made(kind)
    model.save_pretrained(tmp_path / "before")
    silence(model)
    assert switched_off(model)
    with own_config(model):
        model.save_pretrained(tmp_path / "after")
    before, after = (
        json.loads((tmp_path / x / "config.json").read_text()) for x in ("before", "after")
    )
    assert before == after
    assert torch.equal(scored(model, 1, learns=True), scored(model, 2, learns=True))  # off again


def test_a_nested_config_without_a_module_of_its_own_is_silenced_and_kept():
    model = MptForCausalLM(MptConfig(**MPT, attn_config={"attn_pdrop": 1}))
    silence(model)
    assert switched_off(model) == {"attn_pdrop": 1}
    assert model.config.attn_config.attn_pdrop == 0
    with own_config(model):
        assert model.config.attn_config.attn_pdrop == 1


def relay(**given):
    manager = pluggy.PluginManager("alignzoo")
    manager.add_hookspecs(hooks)
    if given:
        manager.register(type("Plugin", (), {k: staticmethod(v) for k, v in given.items()}))
    return manager.hook


def tokenizer():
    words = {f"w{n}": n for n in range(13)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "w2")), eos_token="w1", pad_token="w0"
    )


def save(model, folder):
    save_model(relay(), model, tokenizer(), folder, [tokenizer().eos_token_id])
    return json.loads((folder / "config.json").read_text())


def test_a_folder_goes_through_training_with_its_own_dropout(tmp_path):
    first = save(made("attention_dropout"), tmp_path / "first")
    ref = ModelRef(str(tmp_path / "first"))
    model = load_model(relay(), ref, Role(trainable=True))
    assert switched_off(model) == {"attention_dropout": 0.5}
    optim = Optim(steps=2, batch_size=4, lr=1e-3)
    trained = train(job(tmp_path / "run", SFT(), load=lambda role: model, optim=optim))
    again = save(trained["policy"], tmp_path / "again")
    assert again == first and again["attention_dropout"] == 0.5


def test_a_model_that_a_hook_returned_is_quiet_too(tmp_path):
    mark = pluggy.HookimplMarker("alignzoo")
    plugin = mark(specname="load_model")(lambda ref, role: made("pdrop"))
    ref = ModelRef("mine")
    model = load_model(relay(load_model=plugin), ref, Role(trainable=True))
    assert switched_off(model)["resid_pdrop"] == 0.1
    assert all(m.p == 0 for m in model.modules() if isinstance(m, torch.nn.Dropout))
