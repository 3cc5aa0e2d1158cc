"""A name that two packages offer: `package:name` says which, and a bare one is refused."""

import json

import alignzoo_dpo
import pytest

from alignzoo.cli.authoring.checking import Asked, check_command
from alignzoo.cli.doing.running import plan_command
from alignzoo.cli.looking.catalogue import list_command
from alignzoo.cli.looking.describe import show_command
from alignzoo.contract.errors import PluginError, RecipeError
from alignzoo.recipe.file import load_recipe, recipe_schema
from alignzoo.recipe.registry import load_plugins
from alignzoo.store.identity import stage_identity

SOURCE = '''
from dataclasses import dataclass
from alignzoo import Algorithm, Loss, Role, Stage, Term, hookimpl, option
from alignzoo.ops import implicit_reward, log_prob, log_sigmoid

@dataclass(frozen=True)
class Mine(Algorithm):
    """L = -log sigmoid(scale D). Source: arXiv:2305.18290."""
    name = "dpo"
    roles = {"policy": Role(trainable=True), "reference": Role(like="policy")}
    scale: float = option(0.3, "strength", gt=0)
    def signals(self):
        return {"policy": log_prob("policy")}
    def snapshots(self):
        return {"reference": log_prob("reference")}
    def loss(self, batch, signals, state):
        r = implicit_reward(self.scale, signals["policy"], signals["reference"], batch.mask)
        return Loss(Term(-log_sigmoid(r[batch.chosen] - r[batch.rejected])))

@dataclass(frozen=True)
class Only(Mine):
    """L = -log sigmoid(scale D). Source: arXiv:2305.18290."""
    name = "only_here"

@dataclass(frozen=True)
class Generate(Stage):
    """Writes nothing."""
    name = "generate"
    def run(self, inputs):
        (inputs.folder / "data.jsonl").write_text('{"prompt": "a"}')

@hookimpl
def register_algorithms():
    return [Mine, Only]

@hookimpl
def register_stages():
    return [Generate]
'''
RECIPE = """
name: p
model: facts
stages:
  - {name: pairs, stage: generate, data: {name: facts.prompts, with: {size: 4}}}
  - {name: dpo, algorithm: NAME, data: rows.jsonl}
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package that offers a `dpo` of its own is installed beside the built-in ones."""
    (tmp_path / "outside_plugin.py").write_text(SOURCE)
    info = tmp_path / "outside_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[alignzoo]\noutside_plugin = outside_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return load_plugins()


def load(folder, registry, name):
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.replace("NAME", name))
    return load_recipe(file, registry)


def test_a_qualified_name_is_the_class_of_that_package(outside):
    assert outside.find("algorithm", "alignzoo_dpo:dpo") is alignzoo_dpo.DPO
    mine = outside.find("algorithm", "outside_plugin:dpo")
    assert mine.__module__ == "outside_plugin"
    assert outside.find("algorithm", "outside_plugin:only_here") is outside.algorithms["only_here"]


def test_an_ambiguous_bare_name_is_refused_naming_both(outside, tmp_path):
    words = "outside-plugin .outside_plugin.*; write `alignzoo_dpo:dpo` or `outside_plugin:dpo`"
    with pytest.raises(PluginError, match=words):
        outside.find("algorithm", "dpo")
    with pytest.raises(RecipeError, match=r"stages\.1\.algorithm: algorithm 'dpo' is registered"):
        load(tmp_path, outside, "dpo")


def test_an_unknown_package_is_refused(outside):
    with pytest.raises(PluginError, match="unknown algorithm 'nobody:dpo'"):
        outside.find("algorithm", "nobody:dpo")


def test_recipes_with_one_and_the_other_are_other_work(outside, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    recipes = [
        load(tmp_path, outside, name).model_copy(update={"model": str(tmp_path)})
        for name in ("alignzoo_dpo:dpo", "outside_plugin:dpo")
    ]
    found = []
    for recipe in recipes:
        spec = recipe.stages[1].model_copy(update={"data": recipe.stages[1].data.model_copy(
            update={"name": str(tmp_path / "rows.jsonl")})})  # fmt: skip
        found.append(stage_identity(spec, recipe, outside, {}))
    assert found[0] != found[1]


def test_options_are_those_of_the_package_that_is_named(outside, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("NAME", "outside_plugin:dpo, with: {beta: 1}"))
    with pytest.raises(RecipeError, match=r"unknown option.*\(dpo takes: scale\)"):
        load_recipe(file, outside)


def test_the_cores_own_stage_is_not_taken_over(outside, tmp_path):
    assert load(tmp_path, outside, "outside_plugin:dpo").stages[0].stage == "generate"
    assert outside.find("stage", "outside_plugin:generate").__module__ == "outside_plugin"
    assert list(outside.stages).count("outside_plugin:generate") == 1


def test_list_show_check_and_plan_speak_qualified_names(outside, tmp_path, capsys):
    list_command("algorithms", as_json=True)
    names = {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    assert {"alignzoo_dpo:dpo", "outside_plugin:dpo", "only_here", "ppo"} <= names
    assert "dpo" not in names and "outside_plugin:only_here" not in names
    for name in ("outside_plugin:dpo", "outside_plugin:only_here"):
        show_command(name)
        assert "L = -log sigmoid(scale D)" in capsys.readouterr().out
    with pytest.raises(PluginError, match="write `alignzoo_dpo:dpo` or `outside_plugin:dpo`"):
        show_command("dpo")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    load(tmp_path, outside, "outside_plugin:dpo")
    plan_command(str(tmp_path / "recipe.yaml"), [f"stages.dpo.data.name={tmp_path}/rows.jsonl"],
                 None, as_json=False)  # fmt: skip
    assert "outside_plugin:dpo" in capsys.readouterr().out


def test_check_tries_the_one_that_is_named(outside, capsys):
    assert check_command("outside_plugin:only_here", Asked({}), None) == 0
    assert "all promises kept" in capsys.readouterr().out
    with pytest.raises(PluginError, match="write `alignzoo_dpo:dpo` or `outside_plugin:dpo`"):
        check_command("dpo", Asked({}), None)


def test_an_editor_accepts_both_forms(outside):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    validator = jsonschema.Draft202012Validator(recipe_schema(outside))
    for name, fits in [("outside_plugin:dpo", True), ("ppo", True), ("alignzoo_ppo:ppo", True),
                       ("dpo", False)]:  # fmt: skip
        stage = {"name": "a", "algorithm": name, "data": "x.jsonl"}
        recipe = {"name": "p", "model": "facts", "stages": [stage]}
        assert validator.is_valid(recipe) is fits, name
