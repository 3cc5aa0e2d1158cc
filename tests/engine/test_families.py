"""Families of transformers: exact from the data to the saved folder, or refused.

Ten of those that `benchmarks/families.py` tries, each for something that the others do not have.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch
from family_checks import try_family
from family_models import FAMILIES, NAMED, VOCABULARY, WINDOW, build, save
from safetensors.torch import load_file, save_file

from alignzoo import Completion, RolloutEngine, RolloutSession, Sampling
from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import AlignzooError, PluginError
from alignzoo.contract.rollout import sample_key
from alignzoo.contract.stage import ModelRef
from alignzoo.engine.models.families import checkpoint_activations
from alignzoo.engine.models.load import load_model
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.sampling.ways import Way, way_of
from alignzoo.recipe.registry import load_plugins
from alignzoo.stages.compared import start_compared

FAST = (
    "qwen2",
    "gemma2",
    "gemma3",
    "gemma3n_text",
    "granite",
    "cohere2",
    "mamba",
    "recurrent_gemma",
    "minimax",
    "qwen3_5",
)
SAMPLING = Sampling(max_new_tokens=24, stop_ids=tuple(range(470, VOCABULARY)))
PROMPTS = [tuple(range(20, 20 + n)) for n in (1, 7, 3, 7, 12, 2, 5, 9)]
KEYS = [sample_key(n) for n in range(len(PROMPTS))]


def load(folder, role=None, **ref):
    return load_model(load_plugins().hooks, ModelRef(str(folder), **ref), role or Role())


@pytest.mark.parametrize("name", FAST)
def test_a_family_trains_samples_and_is_saved_exactly(name, tmp_path):
    outcome = try_family(NAMED[name], tmp_path)
    assert outcome.right, outcome


def test_every_row_of_the_table_is_a_family_of_its_own():
    assert len(FAMILIES) == len(NAMED) == 64


# --- ways of sampling ---------------------------------------------------------------------------

WAYS = {
    "qwen2": Way(stepped=True),
    "gpt_neox": Way(stepped=True),
    "deepseek_v3": Way(stepped=True),  # keys and values of two widths
    "qwen2_5_vl": Way(stepped=True),
    "qwen2_5_vl window": Way(continued=False),  # keeps positions of a batch's rows on its modules
    "mistral": Way(),  # a window of keys and values
    "bloom": Way(),  # says itself where a token stands
    "falcon alibi": Way(),
    "jamba": Way(),  # recurrent layers beside attention: the cache knows its length
    "mamba": Way(continued=False),
    "minimax": Way(cached=False),
    "recurrent_gemma": Way(cached=False),
}


VL_TEXT = NAMED["qwen2_5_vl"].config["text_config"]
WINDOWED = {"text_config": VL_TEXT | WINDOW | {"use_sliding_window": True, "max_window_layers": 1}}
VL_WINDOW = replace(NAMED["qwen2_5_vl"], config=NAMED["qwen2_5_vl"].config | WINDOWED)


@pytest.mark.parametrize("name", WAYS)
def test_how_a_model_is_sampled_follows_from_the_cache_it_leaves_behind(name):
    model = build(NAMED.get(name, VL_WINDOW), 0)
    assert way_of(model) == WAYS[name]
    assert way_of(model) == WAYS[name]  # also when an earlier trial left a state


def samples(model):
    session = TransformersEngine(batch_size=4).start(model)
    return [replace(c, log_probs=()) for c in session.generate(PROMPTS, SAMPLING, KEYS)]


@pytest.mark.parametrize("name", ["mamba", "recurrent_gemma", "minimax"])
def test_a_sample_is_the_same_alone_and_in_a_batch_whose_rows_end_one_by_one(name):
    model = build(NAMED[name], 1).eval()
    alone = [
        TransformersEngine().start(model).generate([prompt], SAMPLING, [key])[0]
        for prompt, key in zip(PROMPTS, KEYS, strict=True)
    ]
    assert len({len(c.ids) for c in alone}) > 3
    assert samples(model) == [replace(c, log_probs=()) for c in alone]


def test_sampling_and_checkpointing_call_nothing_that_the_library_has_renamed():
    model = build(NAMED["qwen2"], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        samples(model)  # several calls that go on from a cache
        checkpoint_activations(model)
    assert model.model.layers[0].gradient_checkpointing


class Elsewhere(RolloutEngine):
    """Samples from another model than it was given."""

    name = "elsewhere"

    def start(self, model):
        return TransformersEngine().start(build(NAMED["qwen2"], 2))


class Nowhere(RolloutEngine):
    """Says nothing true about its samples."""

    name = "nowhere"

    def start(self, model):
        return Constant()


class Constant(RolloutSession):
    def generate(self, prompts, sampling, keys):
        return [Completion((5, 6), (float("nan"), 0.0), True) for _ in prompts]


@pytest.mark.parametrize("engine", [Elsewhere(), Nowhere()], ids=lambda engine: engine.name)
def test_samples_that_the_model_would_not_have_given_stop_a_stage(engine, tmp_path):
    model = load(save(NAMED["qwen2"], 1, tmp_path))
    assert start_compared(TransformersEngine(), model).generate(PROMPTS, SAMPLING, KEYS)
    with pytest.raises(PluginError, match="does not sample from this model"):
        start_compared(engine, model).generate(PROMPTS, SAMPLING, KEYS)


# --- wrappers -----------------------------------------------------------------------------------


def test_only_the_language_model_of_a_wrapper_is_trained(tmp_path):
    model = load(save(NAMED["qwen3_5"], 1, tmp_path), Role(trainable=True))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and not any("visual" in name for name in trained)
    assert {n for n, _ in model.named_parameters() if "visual" not in n} == trained


def test_a_tensor_that_the_model_has_no_place_for_is_not_lost_in_silence(tmp_path):
    folder = save(NAMED["llama"], 1, tmp_path)
    file = folder / "model.safetensors"
    save_file(load_file(file) | {"tower.weight": torch.ones(2)}, file, {"format": "pt"})
    with pytest.raises(AlignzooError, match=r"hold 1 tensor .* no place for, such as tower.weight"):
        load(folder, Role(trainable=True))
    assert load(folder, Role())  # a frozen model is not saved


def test_a_wrapper_whose_checkpoint_holds_the_text_alone_is_loaded_without_towers(tmp_path):
    whole = build(NAMED["qwen3_5"], 1)
    folder = save(NAMED["qwen3_5_text"], 1, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    wrapper = whole.config.to_dict() | {"text_config": config, "model_type": "qwen3_5"}
    wrapper["architectures"] = ["Qwen3_5ForCausalLM"]
    (folder / "config.json").write_text(json.dumps(wrapper))
    assert type(load(folder)).__name__ == "Qwen3_5ForCausalLM"


# --- attention ----------------------------------------------------------------------------------


def test_attention_is_computed_as_the_recipe_says(tmp_path):
    folder = save(NAMED["qwen2"], 1, tmp_path)
    assert load(folder).config._attn_implementation == "sdpa"
    assert load(folder, attn_implementation="eager").config._attn_implementation == "eager"


@pytest.mark.parametrize(("name", "word"), [("gemma2", "sdpa"), ("mpt", "sdpa")])
def test_attention_that_a_family_does_not_have_is_refused_in_one_sentence(name, word, tmp_path):
    folder = save(NAMED[name], 1, tmp_path)
    with pytest.raises(AlignzooError) as refusal:
        load(folder, attn_implementation=word)
    text = str(refusal.value)
    assert f"attn_implementation '{word}' is not possible here" in text
    assert "\n" not in text and ". " not in text and text.endswith("the model's default")
