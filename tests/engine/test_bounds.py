"""What a model says about its texts, before it is loaded: a plug-in's model decides."""

from __future__ import annotations

import types

import pytest
from small_models import WORDS, word_model
from transformers import AutoModelForCausalLM

from alignzoo import ModelRef, Role, hookimpl
from alignzoo.contract.errors import AlignzooError
from alignzoo.engine.models.bounds import Bounds, bounds_by_name, bounds_of
from alignzoo.recipe.registry import load_plugins


def relay(load_model):
    module = types.ModuleType("mine")
    module.__file__ = __file__
    module.load_model = hookimpl(load_model)
    return load_plugins([module]).hooks


def test_a_folder_that_no_plugin_knows_is_read_as_plain_transformers_reads_it(tmp_path):
    folder = word_model(tmp_path / "m", ends=("</s>", "<|end|>"), context=48)
    hooks = relay(lambda ref, role: None)
    assert bounds_by_name(hooks, ModelRef(folder), Role()) == Bounds((2, 4), 48, len(WORDS))


def test_a_plugin_that_answers_for_a_folder_decides_what_is_known_of_it(tmp_path):
    folder = word_model(tmp_path / "m", ends=("</s>", "<|end|>"), context=48)

    def stretched(ref, role):
        """The folder's weights with twice the context, one end and eight more ids."""
        if ref.name != folder:
            return None
        longer = {"max_position_embeddings": 96}
        model = AutoModelForCausalLM.from_pretrained(folder, **longer)
        model.generation_config.eos_token_id = 2
        model.resize_token_embeddings(len(WORDS) + 8)
        return model

    hooks = relay(stretched)
    known = bounds_by_name(hooks, ModelRef(folder), Role())
    assert known == Bounds((2,), 96, len(WORDS) + 8)
    assert known == bounds_of(stretched(ModelRef(folder), Role()))


def test_a_folder_that_nobody_can_read_says_what_loading_says(tmp_path):
    with pytest.raises(AlignzooError, match="it has no config"):
        bounds_by_name(relay(lambda ref, role: None), ModelRef(str(tmp_path)), Role())
