"""Rotary angles that depend on a text's length: no row is read otherwise for the rows beside it."""

from __future__ import annotations

import json

import pytest
import torch
from small_models import word_model
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from alignzoo import Item, TextBatch, Tokens
from alignzoo.contract.errors import DataError, TrainingError
from alignzoo.contract.rollout import Sampling
from alignzoo.engine.models.context import context_of, longest_row
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.scoring.scorer import ScoringModule, dense
from alignzoo.ops import log_prob
from alignzoo.recipe.training import folder_context

FIRST, STATED = 32, 128
SIZE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
FACTORS = {"short_factor": [1.0] * 8, "long_factor": [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0]}
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, **FACTORS}


def phi3():
    config = {"original_max_position_embeddings": FIRST, "partial_rotary_factor": 1.0}
    rope = LONG | {"partial_rotary_factor": 1.0}
    return Phi3ForCausalLM(
        Phi3Config(**SIZE, **config, max_position_embeddings=STATED, rope_parameters=rope)
    )


def llama(rope, context=STATED):
    return LlamaForCausalLM(
        LlamaConfig(**SIZE, max_position_embeddings=context, rope_parameters=rope)
    )


def longrope():
    return llama(LONG | {"factor": 4.0, "original_max_position_embeddings": FIRST})


def dynamic():
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    return llama(rope, context=FIRST)


MODELS = {"phi3": phi3, "longrope": longrope, "dynamic": dynamic}


def made(name):
    torch.manual_seed(0)
    return MODELS[name]().eval()


def scored(model, lengths):
    """Summed log-probs of the answers, and those of plain transformers on each row alone."""
    noise = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, 61, (n,), generator=noise).tolist() for n in lengths]
    rows = [Item((Tokens(tuple(x[:8]), tuple(x[8:])),)) for x in ids]
    batch = TextBatch.collate(rows, 0)
    with torch.no_grad():
        module = ScoringModule({"policy": model}, frozenset(), dense)
        found = (module(batch, {"x": log_prob("policy")})["x"] * batch.mask).sum(-1)
        alone = [model(torch.tensor([x]), use_cache=False).logits[0, 7:-1] for x in ids]
    plain = [
        z.log_softmax(-1).gather(1, torch.tensor(x[8:])[:, None]).sum()
        for z, x in zip(alone, ids, strict=True)
    ]
    return found, torch.stack(plain)


@pytest.mark.parametrize("name", MODELS)
def test_rows_up_to_the_first_length_are_scored_as_alone_and_one_beyond_is_refused(name):
    found, plain = scored(made(name), (FIRST, FIRST - 1, FIRST - 4))
    assert found.allclose(plain, atol=1e-4)
    with pytest.raises(TrainingError, match=f"has {FIRST + 1} tokens, and beyond {FIRST} "):
        scored(made(name), (FIRST + 1, FIRST - 4))


@pytest.mark.parametrize("name", MODELS)
def test_no_sample_may_grow_beyond_the_first_length_and_both_numbers_are_said(name):
    model = made(name)
    session = TransformersEngine().start(model)
    wanted = Sampling(max_new_tokens=20)
    prompts = [list(range(3, 3 + n)) for n in (FIRST - 20, 4)]
    for prompt, done in zip(prompts, session.generate(prompts, wanted, [1, 2]), strict=True):
        ids = torch.tensor([[*prompt, *done.ids]])
        plain = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = plain.gather(1, ids[0, len(prompt) :, None])[:, 0]
        assert torch.tensor(done.log_probs).allclose(expected, atol=1e-4)
    with pytest.raises(DataError, match=f"make {FIRST + 1}, but the model's context is {FIRST}"):
        session.generate([[5] * (FIRST - 19)], wanted, [1])


@pytest.mark.parametrize("kind", ["longrope", "su"])
def test_a_recipe_is_told_both_numbers_by_a_folder_in_the_older_form_too(tmp_path, kind):
    folder = word_model(tmp_path / "m", context=STATED)
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    config.pop("rope_parameters")
    scaling = {"type": kind, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    more = {"rope_scaling": scaling, "original_max_position_embeddings": FIRST}
    file.write_text(json.dumps(config | more))
    context, why = folder_context(folder)
    assert context == FIRST and why.startswith(f" (of {STATED}; LongRoPE")
    if kind == "longrope":  # of the older name only the family that had it knows
        assert context_of(AutoConfig.from_pretrained(folder)) == FIRST


def test_a_model_whose_angles_never_change_keeps_its_context_and_has_no_longest_row():
    config = LlamaConfig(**SIZE, max_position_embeddings=STATED)
    assert (context_of(config), longest_row(config)) == (STATED, None)
    config.rope_parameters = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0} | {
        "original_max_position_embeddings": FIRST
    }
    assert (context_of(config), longest_row(config)) == (STATED, None)


def test_angles_of_one_kind_of_layer_alone_count_too():
    config = LlamaConfig(**SIZE, max_position_embeddings=STATED)
    config.rope_parameters = {
        "full_attention": LONG | {"original_max_position_embeddings": FIRST},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    assert (context_of(config), longest_row(config)) == (FIRST, FIRST)
