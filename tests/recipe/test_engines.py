"""How recipes name the engine that samples, and which of its options are part of a result."""

import pytest
import yaml
from recipe_plugins import registry
from test_recipe import GOOD, load, validator

from alignzoo.contract.errors import RecipeError
from alignzoo.recipe.blocks import EngineSpec
from alignzoo.store.identity import answers_identity, engine_identity, stage_identity

NEW = "engine: {name: fast, with: {memory: 0.5}}"
PLAIN = GOOD.replace("1e-6", "0.000001").replace("1e-3", "0.001")


def test_the_older_spelling_of_a_rollout_engine_means_the_same(tmp_path):
    older = GOOD.replace(NEW, "engine: fast, with: {memory: 0.5}")
    assert older != GOOD
    assert load(tmp_path, older) == load(tmp_path)
    plain = yaml.safe_load(PLAIN.replace(NEW, "engine: fast, with: {memory: 0.5}"))
    assert not [error.message for error in validator().iter_errors(plain)]


def test_options_of_an_engine_in_two_places_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="options of an engine stand in one place"):
        load(tmp_path, GOOD.replace(NEW, f"{NEW}, with: {{memory: 0.5}}"))


@pytest.mark.parametrize("at", ["stages.1", "stages.4.rollout", "evaluate.0"])
def test_an_engine_has_options_wherever_something_is_sampled(tmp_path, at):
    recipe = load(tmp_path, overrides=[f"{at}.engine={{name: fast, with: {{memory: 0.25}}}}"])
    places = {
        "stages.1": recipe.stages[1],
        "stages.4.rollout": recipe.stages[4].rollout,
        "evaluate.0": recipe.evaluate[0],
    }
    assert places[at].engine == EngineSpec.model_validate(
        {"name": "fast", "with": {"memory": 0.25}}
    )
    short = load(tmp_path, overrides=[f"{at}.engine=fast"])
    assert short != recipe
    with pytest.raises(RecipeError, match=rf"{at}.engine.with.memory: must be less"):
        load(tmp_path, overrides=[f"{at}.engine={{name: fast, with: {{memory: 2}}}}"])
    with pytest.raises(RecipeError, match="batch_size stands beside it"):
        load(tmp_path, overrides=[f"{at}.engine={{name: transformers, with: {{memory: 1}}}}"])


def test_the_schema_knows_the_options_of_an_engine():
    plain = yaml.safe_load(PLAIN)
    plain["stages"][1]["engine"] = {"name": "fast", "with": {"memory": 3}}
    assert not validator().is_valid(plain)
    plain["stages"][1]["engine"] = {"name": "fast", "with": {"memory": 1}}
    assert validator().is_valid(plain)
    plain["stages"][1]["engine"] = "transformers"
    assert validator().is_valid(plain)


def test_the_built_in_engine_is_known_by_its_name_and_another_by_its_options_too():
    assert engine_identity(EngineSpec(), registry()) == "transformers"
    by_default = {"name": "fast", "settings": {"memory": 0.9}}
    assert engine_identity(EngineSpec(name="fast"), registry()) == by_default


@pytest.mark.parametrize("at", ["stages.1", "stages.4.rollout", "evaluate.0"])
def test_work_is_done_again_for_an_option_that_decides_samples_and_only_then(
    tmp_path, monkeypatch, at
):
    plugins = registry()

    def identity(engine):
        recipe = load(tmp_path, overrides=[f"{at}.engine={engine}", "stages.1.data=toys"])
        if at == "evaluate.0":
            return answers_identity(recipe.evaluate[0], "initial", [], recipe, plugins, {}).digest
        stage = recipe.stages[int(at.split(".")[1])]
        free = stage.model_copy(update={"policy": None, "roles": {}})
        return stage_identity(free, recipe, plugins, {}).digest

    half, quarter = (f"{{name: fast, with: {{memory: {share}}}}}" for share in (0.5, 0.25))
    assert identity(half) == identity(half)
    assert len({identity(half), identity(quarter), identity("transformers")}) == 3
    monkeypatch.setattr(plugins.engines["fast"], "identity", lambda self: {})
    assert identity(half) == identity(quarter) != identity("transformers")
