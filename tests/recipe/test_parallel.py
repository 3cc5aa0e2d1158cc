"""`parallel:` says how models lie over processes: it makes no other result, and no other run."""

import pytest

from alignzoo.contract.errors import RecipeError
from alignzoo.plan import plan_recipe
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.store.folders import default_folder, resolved
from alignzoo.store.identity import stage_identity

TRAINS = """
name: p
model: facts
stages:
  - {name: sft, algorithm: sft, data: {name: facts.sft, with: {size: 40}}}
"""
SAMPLES = """
name: p
model: facts
stages:
  - {name: answers, stage: generate, data: {name: facts.prompts, with: {size: 4}}}
"""


def load(folder, text, *overrides):
    file = folder / "recipe.yaml"
    file.write_text(text)
    return load_recipe(file, load_plugins(), overrides)


@pytest.mark.parametrize("strategy", ["fsdp2", "zero2", "zero3"])
def test_another_strategy_shares_the_run_folder_and_every_finished_stage(tmp_path, strategy):
    usual, other = load(tmp_path, TRAINS), load(tmp_path, TRAINS, f"parallel.strategy={strategy}")
    assert usual.parallel.strategy == "ddp"
    assert default_folder(usual, load_plugins()) == default_folder(other, load_plugins())
    registry = load_plugins()
    one, two = (stage_identity(r.stages[0], r, registry, {}) for r in (usual, other))
    assert one == two
    assert resolved(other)["parallel"] == {"strategy": strategy}


def test_a_plan_names_the_strategy(tmp_path):
    recipe = load(tmp_path, TRAINS, "parallel.strategy=fsdp2")
    assert plan_recipe(recipe, load_plugins(), tmp_path / "r").strategy == "fsdp2"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("parallel.strategy=fsdp", r"parallel\.strategy: .*'ddp', 'fsdp2', 'zero2' or 'zero3'"),
        ("parallel.stratgy=ddp", r"parallel\.stratgy: unknown key; did you mean 'strategy'"),
        ("parallel=fsdp2", "parallel: "),
    ],
)
def test_a_slip_in_the_block_is_named_with_what_it_takes(tmp_path, override, words):
    with pytest.raises(RecipeError, match=words):
        load(tmp_path, TRAINS, override)


def test_a_strategy_that_no_stage_follows_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"parallel\.strategy: no train stage follows it"):
        load(tmp_path, SAMPLES, "parallel.strategy=fsdp2")
    assert load(tmp_path, SAMPLES, "parallel.strategy=ddp")
