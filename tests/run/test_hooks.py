"""Hooks of careless plug-ins: watchers that fail, models that cannot be kept or that change."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace

import alignzoo_facts
import pytest
import torch
from alignzoo_facts.model import build_model, build_tokenizer
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from alignzoo import ModelRef, Role, Tracker, hookimpl
from alignzoo.contract.errors import AlignzooError, PluginError, RecipeError
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import build_registry, load_plugins
from alignzoo.run import How, run_recipe


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


class Notes:
    """Progress that keeps what is said."""

    def __init__(self):
        self.said, self.pieces = [], []

    def stage_started(self, name, index, total):
        self.pieces.append(f"run {name}")

    def stage_reused(self, name, index, total):
        self.pieces.append(f"reuse {name}")

    def step(self, stage, step, total, metrics, timing):
        pass

    def stage_finished(self, name):
        pass

    def note(self, text):
        self.said.append(text)


def plugin(**hooks):
    module = types.ModuleType("careless")
    module.__file__ = __file__
    for name, function in hooks.items():
        function.__name__ = name
        setattr(module, name, hookimpl(function))
    return module


def training(model="facts", steps=2):
    stage = {
        "name": "sft",
        "algorithm": "sft",
        "data": {"name": "facts.sft", "with": {"size": 8}},
        "train": {"steps": steps, "batch_size": 4, "lr": 0.01},
    }
    return Recipe.model_validate({"name": "r", "model": model, "threads": 1, "stages": [stage]})


def run(folder, *plugins, recipe=None):
    notes = Notes()
    run_recipe(recipe or training(), "", load_plugins(plugins), folder, notes)
    return notes


# --- watching -------------------------------------------------------------------------------------


def falls_over(run, stage, step, metrics):
    metrics.clear()
    raise ValueError("the dashboard is down")


def leaves(run, error):
    raise SystemExit(3)


def test_a_watcher_that_fails_is_named_and_counted_and_the_run_goes_on(tmp_path):
    notes = run(tmp_path / "r", plugin(on_step=falls_over, on_run_end=leaves))
    (first,) = [s for s in notes.said if "dashboard" in s]
    assert "on_step of careless failed, the run goes on: ValueError" in first
    assert "test_hooks.py:" in first
    assert "warning: on_step of careless failed 2 times in this run" in notes.said
    record = json.loads((tmp_path / "r/run.json").read_text())
    assert record["status"] == "done"
    assert record["failed_hooks"] == {"on_step of careless": 2, "on_run_end of careless": 1}
    rows = (tmp_path / "r/stages/01-sft/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2]


def test_a_watcher_that_fails_hides_no_other_watcher(tmp_path):
    seen = []
    watcher = plugin(on_step=lambda run, stage, step, metrics: seen.append((step, len(metrics))))
    watcher.__name__ = "watcher"
    run(tmp_path / "r", plugin(on_step=falls_over), watcher)
    assert [step for step, _ in seen] == [1, 2]
    assert all(n > 2 for _, n in seen), "metrics that another watcher cleared"


def test_a_watcher_hears_the_recipe_and_the_units_first_and_every_end_of_a_stage(tmp_path):
    heard = []

    def begins(run, recipe, metrics):
        heard.append(
            (recipe["stages"][0]["train"]["steps"], metrics["sft"]["response_length"].unit)
        )

    def ends(run, stage, folder, reused):
        record = json.loads((folder / "stage.json").read_text())
        heard.append((stage, folder.relative_to(run).as_posix(), reused, record["status"]))

    watcher = plugin(on_run_start=begins, on_stage_end=ends)
    for reused in (False, True):
        run(tmp_path / "r", watcher)
        assert heard == [(2, "tokens"), ("sft", "stages/01-sft", reused, "done")]
        heard.clear()


def test_a_tracker_is_chosen_by_name_and_one_with_a_misspelt_hook_is_refused(tmp_path):
    steps = []

    class Watcher:
        @hookimpl
        def on_step(self, step):
            steps.append(step)

    class Misspelt:
        @hookimpl
        def on_steps(self, step):
            steps.append(step)

    class Mine(Tracker):
        """Counts steps."""

        name = "mine"

        def watch(self):
            return watched()

    watched = Watcher
    hooks = plugin(register_trackers=lambda: [Mine])
    recipe = Recipe.model_validate(training().model_dump(by_alias=True) | {"trackers": ["mine"]})
    run(tmp_path / "plain", hooks)
    assert steps == [], "not chosen"
    run(tmp_path / "r", hooks, recipe=recipe.model_copy(update={"seed": 1}))
    assert steps == [1, 2]
    watched = Misspelt
    with pytest.raises(PluginError, match="unknown hook 'on_steps'; did you mean 'on_step'"):
        run(tmp_path / "s", hooks, recipe=recipe)


def test_what_a_run_leaves_for_its_reader_is_there_when_watchers_hear_of_its_end(tmp_path):
    page, seen = tmp_path / "r/report.html", []
    watcher = plugin(on_run_end=lambda run, error: seen.append(page.exists()))
    how = How(when_done=lambda: page.write_text("the page"))
    run_recipe(training(), "", load_plugins([watcher]), tmp_path / "r", Notes(), how)
    assert seen == [True]


def test_the_error_of_the_run_stays_the_cause_when_a_watcher_fails_at_its_end(tmp_path):
    recipe = training()
    broken = recipe.model_dump(by_alias=True, exclude_none=True)
    broken["stages"][0]["data"] = {"name": str(tmp_path / "missing.jsonl")}
    with pytest.raises(RecipeError, match="missing"):
        run(tmp_path / "r", plugin(on_run_end=leaves), recipe=Recipe.model_validate(broken))


# --- models ---------------------------------------------------------------------------------------

MINE = "mine"


def tokenizer(ref):
    return build_tokenizer() if ref.name == MINE else None


def loading(make):
    return lambda ref, role: make(ref, role) if ref.name == MINE else None


def base(ref, role):
    return build_model(ModelRef("facts", ref.seed), role)


def frozen(ref, role):
    model = base(ref, role)
    model.get_input_embeddings().requires_grad_(False)
    return model


def test_parameters_that_load_model_froze_come_out_of_training_as_they_were(tmp_path):
    hooks = plugin(load_model=loading(frozen), load_tokenizer=tokenizer)
    run(tmp_path / "r", hooks, recipe=training(MINE))
    kept = load_file(tmp_path / "r/stages/01-sft/model/model.safetensors")
    before = dict(base(ModelRef(MINE), Role()).named_parameters())
    moved = {name for name, x in kept.items() if not torch.equal(x, before[name])}
    assert "model.embed_tokens.weight" not in moved
    assert any(name.startswith("model.layers.0.") for name in moved)


def biased(ref, role):
    """Answers with other logits than config.json says: its head has a bias."""
    model = base(ref, role)
    wider = nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=True)
    wider.weight = model.lm_head.weight
    wider.bias = nn.Parameter(torch.linspace(-3, 3, model.config.vocab_size))
    model.lm_head = wider
    return model


def rough(ref, role):
    """Answers with other logits than config.json says: one of its norms has another constant."""
    model = base(ref, role)
    model.model.norm.variance_epsilon = 10.0
    return model


@pytest.mark.parametrize(
    ("made", "cause"),
    [(biased, "no place for, such as lm_head.bias"), (rough, "answers differently")],
)
def test_a_model_that_cannot_be_kept_stops_the_stage_before_training(tmp_path, made, cause):
    hooks = plugin(load_model=loading(made), load_tokenizer=tokenizer)
    with pytest.raises(PluginError, match=rf"cannot be kept.*{cause}.*save_model"):
        run(tmp_path / "r", hooks, recipe=training(MINE))
    assert not (tmp_path / "r/stages/01-sft/metrics.jsonl").exists()


def test_a_model_that_its_plugin_saves_and_loads_again_is_trained(tmp_path):
    def keep(model, folder):
        if not isinstance(model.lm_head.bias, nn.Parameter):
            return None
        model.save_pretrained(folder)
        torch.save(model.lm_head.bias.detach(), folder / "bias.pt")
        return True

    def load(ref, role):
        bias = ref.path / "bias.pt"
        if ref.name != MINE and not bias.exists():
            return None
        if ref.name == MINE:
            return biased(ref, role)
        model = AutoModelForCausalLM.from_pretrained(ref.path)
        again = nn.Linear(model.config.hidden_size, model.config.vocab_size)
        again.weight = model.lm_head.weight
        again.bias = nn.Parameter(torch.load(bias))
        model.lm_head = again
        return model

    hooks = plugin(load_model=load, load_tokenizer=tokenizer, save_model=keep)
    run(tmp_path / "r", hooks, recipe=training(MINE))
    trained = torch.load(tmp_path / "r/stages/01-sft/model/bias.pt")
    assert not torch.equal(trained, biased(ModelRef(MINE), Role()).lm_head.bias)


class PeftModel(nn.Module):
    """Named and made like those of peft: a wrapper around a model, which can be merged."""

    def __init__(self, model):
        super().__init__()
        self.base_model = model

    def merge_and_unload(self):
        return self.base_model


def test_a_peft_model_is_refused_with_one_sentence_and_its_merged_form_is_trained(tmp_path):
    wrapped = plugin(
        load_model=loading(lambda ref, role: PeftModel(base(ref, role))), load_tokenizer=tokenizer
    )
    with pytest.raises(PluginError, match=r"returned a PeftModel.*merge_and_unload\(\)"):
        run(tmp_path / "r", wrapped, recipe=training(MINE))
    merged = plugin(
        load_model=loading(lambda ref, role: PeftModel(base(ref, role)).merge_and_unload()),
        load_tokenizer=tokenizer,
    )
    assert run(tmp_path / "m", merged, recipe=training(MINE)).pieces == ["run sft"]


def test_a_hook_that_fails_is_named_with_file_and_line(tmp_path):
    def fails(ref, role):
        raise RuntimeError("no disk")

    hooks = plugin(load_model=loading(fails), load_tokenizer=tokenizer)
    with pytest.raises(PluginError, match=r"`load_model` failed: RuntimeError: no disk .*\.py:\d+"):
        run(tmp_path / "r", hooks, recipe=training(MINE))
    with pytest.raises(AlignzooError, match="`identity` failed"):
        run(tmp_path / "i", plugin(identity=lambda ref: 1 / 0))


# --- identity -------------------------------------------------------------------------------------


def test_a_model_that_changes_behind_a_plugins_name_is_never_reused(tmp_path):
    content = ["one"]
    hooks = plugin(
        load_model=loading(base),
        load_tokenizer=tokenizer,
        identity=lambda ref: content[0] if ref.name == MINE else None,
    )
    recipe = training(MINE)
    first = run(tmp_path / "r", hooks, recipe=recipe)
    assert first.pieces == ["run sft"]
    assert run(tmp_path / "r", hooks, recipe=recipe).pieces == ["reuse sft"]
    content[0] = "two"
    assert run(tmp_path / "r", hooks, recipe=recipe).pieces == ["run sft"]
    assert not any("states no `identity(ref)`" in text for text in first.said)


def test_a_plugin_that_states_no_identity_is_named(tmp_path):
    hooks = plugin(load_model=loading(base), load_tokenizer=tokenizer)
    said = run(tmp_path / "r", hooks, recipe=training(MINE)).said
    assert any("'mine' and states no `identity(ref)`" in text for text in said)


def plain_folder(path):
    build_model(ModelRef("facts"), Role()).save_pretrained(path)
    build_tokenizer().save_pretrained(path)
    return path


def edited(hooks, code):
    """A registry in which a plug-in's code has this digest."""
    known = load_plugins([hooks])
    pairs = [(sys.modules.get(p.module, hooks), p) for p in known.plugins]
    return build_registry([(m, replace(p, digest=code) if m is hooks else p) for m, p in pairs])


@pytest.mark.parametrize("hook", ["load_model", "load_tokenizer", "save_model"])
def test_work_on_a_folder_is_done_again_when_a_plugin_that_may_answer_for_it_changes(
    tmp_path, hook
):
    first = training(str(plain_folder(tmp_path / "base")))
    more = first.stages[0].model_copy(update={"name": "more", "policy": "sft"})
    recipe = first.model_copy(update={"stages": (*first.stages, more)})
    hooks = plugin(**{hook: HOOKS[hook]})

    def pieces(code):
        notes = Notes()
        run_recipe(recipe, "", edited(hooks, code), tmp_path / "r", notes)
        return notes.pieces

    assert pieces("1") == ["run sft", "run more"]
    assert pieces("1") == ["reuse sft", "reuse more"]
    assert pieces("2") == ["run sft", "run more"], "the result of a stage is loaded by it, too"


def test_work_on_a_folder_is_reused_when_a_plugin_that_answers_for_no_model_changes(tmp_path):
    recipe = training(str(plain_folder(tmp_path / "base")))
    hooks = plugin(on_step=lambda run, stage, step, metrics: None)
    for code, expected in (("1", ["run sft"]), ("2", ["reuse sft"])):
        notes = Notes()
        run_recipe(recipe, "", edited(hooks, code), tmp_path / "r", notes)
        assert notes.pieces == expected


HOOKS = {
    "load_model": lambda ref, role: None,
    "load_tokenizer": lambda ref: None,
    "save_model": lambda model, folder: None,
}


def scoring(ref, role):
    return base(ref, Role(trainable=True, head="scalar"))


def test_a_plugins_reward_model_without_identity_is_named_too(tmp_path):
    hooks = plugin(load_model=loading(scoring), load_tokenizer=tokenizer)
    stage = {
        "name": "rl",
        "algorithm": "grpo",
        "data": {"name": "facts.prompts", "with": {"size": 2}},
        "rollout": {
            "prompts": 2,
            "samples_per_prompt": 2,
            "sampling": {"max_new_tokens": 2},
            "reward": {"model": MINE},
        },
        "train": {"steps": 1, "batch_size": 4},
    }
    parts = {"name": "r", "model": "facts", "threads": 1, "stages": [stage]}
    said = run(tmp_path / "r", hooks, recipe=Recipe.model_validate(parts)).said
    assert sum("'mine' and states no `identity(ref)`" in text for text in said) == 1


def test_the_embedded_world_states_what_its_model_is_made_of():
    assert alignzoo_facts.identity(ModelRef("facts", 3)) == "facts seed 3"
    assert alignzoo_facts.identity(ModelRef("other")) is None
