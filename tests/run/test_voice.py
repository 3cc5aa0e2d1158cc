"""What a run says of itself, and what the libraries beneath do not say between its lines."""

from __future__ import annotations

import json
import re

import pytest
import torch
from alignzoo_facts.model import build_model, build_tokenizer
from small_models import run_stages, word_model, write_rows
from test_hooks import Notes, base, loading, plugin, tokenizer, training

from alignzoo import ModelRef, Role
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.run import run_recipe


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


def said(recipe, folder, *plugins):
    notes = Notes()
    run_recipe(recipe, "", load_plugins(plugins), folder, notes)
    return notes.said


def changed(recipe, **stage):
    data = recipe.model_dump(by_alias=True, exclude_none=True)
    data["stages"][0].update(stage)
    return Recipe.model_validate(data)


def test_validation_says_its_value_each_time_and_the_step_that_is_kept(tmp_path):
    held_out = {"name": "facts.sft", "with": {"size": 6}}
    recipe = changed(training(steps=4), validation={"data": held_out, "every": 2})
    lines = [text for text in said(recipe, tmp_path / "r") if "validation loss" in text]
    rows = (tmp_path / "r/stages/01-sft/metrics.jsonl").read_text().splitlines()
    losses = {r["step"]: r["validation/loss"] for r in map(json.loads, rows) if r["step"] % 2 == 0}
    best = min(losses, key=losses.get)
    assert f"sft: step 2: validation loss {losses[2]:.4g}, the best so far" in lines
    assert any(text.startswith(f"sft: step 4: validation loss {losses[4]:.4g}, ") for text in lines)
    kept = f"sft: keeps the weights of step {best} of 4, validation loss {losses[best]:.4g}"
    assert lines[-1] == kept


def test_a_buffer_that_serves_fewer_updates_than_it_could_is_said(tmp_path):
    rollout = {"prompts": 4, "epochs": 3, "sampling": {"max_new_tokens": 4}}
    rollout["reward"] = {"judge": "facts.oracle"}
    recipe = changed(
        training(steps=4), algorithm="ppo", data={"name": "facts.prompts"}, rollout=rollout
    )
    assert "sft: the last buffer served 1 of 3 updates: train.steps ends there" in said(
        recipe, tmp_path / "r"
    )


def test_frozen_parameters_of_a_role_that_learns_are_counted(tmp_path):
    def frozen(ref, role):
        model = base(ref, role)
        model.lm_head.weight.requires_grad_(False)
        return model

    hooks = plugin(load_model=loading(frozen), load_tokenizer=tokenizer)
    (line,) = [t for t in said(training("mine"), tmp_path / "r", hooks) if "frozen" in t]
    model = base(ModelRef("mine"), Role())
    still, every = model.lm_head.weight.numel(), sum(p.numel() for p in model.parameters())
    assert line == f"sft: policy: {still:,} of {every:,} parameters were frozen when it was loaded"


def test_a_load_report_becomes_one_line_and_no_library_warning_is_shown(tmp_path, capfd):
    folder = tmp_path / "base"
    model = build_model(ModelRef("facts"), Role())
    model.register_parameter("stray", torch.nn.Parameter(torch.zeros(2)))
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    recipe = changed(
        training(str(folder)),
        algorithm="reward_model",
        data={"name": str(tmp_path / "pairs.jsonl"), "max_equal": 1},  # unknown words alike
        train={"steps": 1, "batch_size": 2},
    )
    row = {"prompt": "tell me", "chosen": "ok .", "rejected": "well ."}
    (tmp_path / "pairs.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    lines = said(recipe, tmp_path / "r")
    assert any(
        re.search(r"role 'policy', .*has no score\.weight; drawn at random from the seed", text)
        for text in lines
    )
    assert any("not used of the checkpoint: 1 tensor, such as stray" in text for text in lines)
    shown = capfd.readouterr()
    assert "LOAD REPORT" not in shown.out + shown.err


def test_the_head_for_words_that_a_reward_model_leaves_behind_is_no_news(tmp_path):
    model = word_model(tmp_path / "base")  # its head is no copy of the embedding
    row = {"prompt": "the cat", "chosen": " sat", "rejected": " ran"}
    data = write_rows(tmp_path / "pairs.jsonl", [row, row | {"prompt": "hello"}])
    train = {"steps": 1, "batch_size": 2, "lr": 1e-3}
    stage = {"name": "rm", "algorithm": "reward_model", "data": {"name": data}, "train": train}
    lines = run_stages(model, tmp_path / "r", stage)
    assert any("has no score.weight; drawn at random" in text for text in lines)
    assert not any("lm_head" in text or "are not used" in text for text in lines)
