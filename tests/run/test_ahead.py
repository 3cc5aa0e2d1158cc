"""What a later stage could not do is told by the plan, and by a run before anything is trained."""

import sys
from dataclasses import dataclass, replace

import pytest
import yaml
from small_models import word_model, write_rows

from alignzoo import DataError, RolloutEngine, option
from alignzoo.contract.errors import described
from alignzoo.contract.progress import Silent
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.plan import plan_recipe
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.faults import FaultyRecipe
from alignzoo.recipe.registry import Plugin, load_plugins
from alignzoo.run import run_recipe

TRAIN = {"steps": 1, "batch_size": 2, "lr": 0.01}
SFT = {"name": "sft", "algorithm": "sft", "data": "texts.jsonl", "train": TRAIN}
LATER = {"name": "later", "algorithm": "sft", "policy": "sft", "data": "texts.jsonl"}
FAULTS = []  # what the engine below says of this machine


@dataclass(frozen=True)
class Picky(RolloutEngine):
    """Samples as the built-in engine does, where it says that it can."""

    name = "picky"
    size: int = option(4, "rows")

    def check_here(self):
        for fault in FAULTS:
            raise fault

    def start(self, model):
        return TransformersEngine(self.size).start(model)


@dataclass(frozen=True)
class Older(RolloutEngine):
    """An engine of the time before it could say where it runs."""

    name = "older"

    def start(self, model):
        return TransformersEngine(4).start(model)


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """The plug-ins, and two engines more."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    word_model(tmp_path / "base")
    write_rows(tmp_path / "texts.jsonl", [{"prompt": "the cat", "response": " sat on a mat"}] * 2)
    known, more = load_plugins(), Plugin("picky_engine", "picky", "1", "")
    engines = {**known.kinds["engine"], "picky": Picky, "older": Older}
    owners = {**known.owners, Picky: more, Older: more}
    yield replace(known, kinds={**known.kinds, "engine": engines}, owners=owners)
    FAULTS.clear()


def recipe(*stages, **more):
    return Recipe.model_validate({"name": "x", "model": "base", "stages": stages, **more})


def refused(what, plugged, tmp_path, *told):
    """By the plan and by a run, each with these faults, and nothing is trained."""
    for work in (
        lambda: plan_recipe(what, plugged, tmp_path / "run"),
        lambda: run_recipe(what, "", plugged, tmp_path / "run", Silent()),
    ):
        with pytest.raises(FaultyRecipe) as caught:
            work()
        assert str(caught.value).splitlines() == [*told]
    assert not list((tmp_path / "run").glob("stages/*"))


def generate(engine="picky"):
    sampling = {"max_new_tokens": 2}
    stage = {"name": "answers", "stage": "generate", "policy": "sft", "data": "texts.jsonl"}
    return {**stage, "sampling": sampling, "engine": engine}


def test_an_engine_that_cannot_sample_here_is_told_wherever_it_is_named(plugged, tmp_path):
    FAULTS.append(DataError("no such server"))
    online = {"name": "online", "algorithm": "grpo", "policy": "sft", "data": "texts.jsonl"}
    rollout = {"prompts": 2, "samples_per_prompt": 2, "reward": {"judge": "facts.oracle"}}
    online |= {"train": {**TRAIN, "batch_size": 4}, "rollout": {**rollout, "engine": "picky"}}
    quiz = {"benchmark": "facts", "with": {"size": 2}, "models": ["sft"], "engine": "picky"}
    refused(
        recipe(SFT, generate(), online, evaluate=[quiz]),
        plugged,
        tmp_path,
        "stages.1.engine: no such server",
        "stages.2.rollout.engine: no such server",
        "evaluate.0.engine: no such server",
    )


def test_an_engine_whose_own_look_fails_is_told_by_its_name(plugged, tmp_path):
    FAULTS.append(fault := ZeroDivisionError("oh"))
    with pytest.raises(ZeroDivisionError):
        Picky().check_here()
    told = f"stages.1.engine: picky: its `check_here` failed: {described(fault)}"
    refused(recipe(SFT, generate()), plugged, tmp_path, told)


def test_an_engine_that_says_nothing_of_the_machine_samples(plugged, tmp_path):
    run_recipe(recipe(SFT, generate("older")), "", plugged, tmp_path / "run", Silent())
    assert (tmp_path / "run/stages/02-answers/data.jsonl").exists()


def test_what_is_finished_needs_no_engine(plugged, tmp_path):
    what = recipe(SFT, generate())
    run_recipe(what, "", plugged, tmp_path / "run", Silent())
    FAULTS.append(DataError("no such server"))
    assert {s.status for s in plan_recipe(what, plugged, tmp_path / "run").stages} == {"reused"}
    run_recipe(what, "", plugged, tmp_path / "run", Silent())
    run_recipe(what, "", plugged, tmp_path / "another", Silent())  # found in the cache


KNOWN = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"


@pytest.mark.parametrize(
    ("target", "what"),
    [("wqkv", "unknown"), ("lm_head", "lm_head is no linear layer inside")],
)
def test_layers_that_the_model_under_an_adapter_does_not_have_are_told(
    plugged, tmp_path, target, what
):
    later = {**LATER, "adapter": {"lora": {"targets": ["q_proj", target]}}}
    told = f"stages.1.adapter.lora.targets: '{target}': {what} (LlamaForCausalLM has: {KNOWN})"
    refused(recipe(SFT, later), plugged, tmp_path, told)


def test_layers_of_a_plugins_model_are_told_and_those_that_it_has_are_fine(plugged, tmp_path):
    data = {"name": "facts.sft", "with": {"size": 4}}
    first = {**SFT, "data": data}

    def later(target):
        return {**LATER, "data": data, "train": TRAIN, "adapter": {"lora": {"targets": [target]}}}

    told = "stages.1.adapter.lora.targets: 'w': unknown"
    with pytest.raises(FaultyRecipe, match=told):
        plan_recipe(recipe(first, later("w"), model="facts"), plugged, tmp_path / "run")
    plan_recipe(recipe(first, later("q_proj"), model="facts"), plugged, tmp_path / "run")


def test_layers_of_a_model_that_is_not_here_are_looked_for_by_its_stage(plugged, tmp_path):
    later = {**LATER, "adapter": {"lora": {"targets": ["nothing"]}}}
    plan_recipe(recipe(SFT, later, model="their/model"), plugged, tmp_path / "run")


def test_a_strategy_that_cannot_be_had_is_told_before_anything_is_sampled(
    plugged, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    first = {**generate("transformers"), "policy": None}
    what = recipe(first, SFT, parallel={"strategy": "zero2"})
    how = "pip install 'alignzoo[deepspeed]', or take fsdp2"
    told = f"parallel.strategy: zero2 needs DeepSpeed, which is not installed here; {how}"
    refused(what, plugged, tmp_path, told)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_the_command_line_says_where_the_recipe_names_it(cli, plugged, tmp_path, command):
    later = {**LATER, "adapter": {"lora": {"targets": ["wqkv"]}}}
    text = {"name": "x", "model": "base", "stages": [SFT, later]}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    lines = (tmp_path / "x.yaml").read_text().splitlines()
    line = next(n for n, written in enumerate(lines, 1) if "wqkv" in written)
    status, _, err = cli(command, "x.yaml")
    assert status == 2
    assert f"x.yaml:{line - 1}:" in err or f"x.yaml:{line}:" in err
    assert "stages.1.adapter.lora.targets: 'wqkv': unknown" in err
