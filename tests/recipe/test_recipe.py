import copy
import subprocess
import sys
from dataclasses import dataclass

import pytest
import yaml
from recipe_plugins import Copy, Margin, Online, registry

from alignzoo.contract.errors import PluginError, RecipeError
from alignzoo.recipe.blocks import GenerateSpec, LabelSpec, PluginStageSpec, Recipe, TrainSpec
from alignzoo.recipe.file import load_recipe, recipe_schema
from alignzoo.recipe.options import build_options, option_table, options_schema

GOOD = """
name: good
model: toy-model
seed: 7
stages:
  - {name: sft, algorithm: copy, with: {weight: 1}, roles: {teacher: initial}, data: toys}
  - name: samples
    stage: generate
    policy: sft
    data: {name: toys, with: {size: 4}}
    samples: 2
  - {name: pairs, stage: label, data: samples, judge: length, with: {target: 3}}
  - name: margin-0.5
    algorithm: margin
    policy: sft
    with: {beta: 0.5}
    data: pairs
    train: {lr: 1e-6, batch_size: 8}
    validation: {data: {name: pairs, limit: 5}, metric: accuracy, better: higher}
  - name: online
    algorithm: online
    policy: margin-0.5
    roles: {critic: sft}
    data: toys
    train: {lr_by_role: {critic: 1e-3}}
    rollout: {prompts: 32, samples_per_prompt: 4, engine: {name: fast, with: {memory: 0.5}},
              reward: {judge: length}}
  - {name: mixed, stage: mix, models: {a: sft, b: org/model}, data: samples}
evaluate:
  - {benchmark: quiz, models: [sft, mixed, initial], baseline: initial, kl_to: [margin-0.5]}
"""


def load(tmp_path, text=GOOD, overrides=()):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, registry(), overrides)


def test_a_recipe_becomes_typed_stages(tmp_path):
    recipe = load(tmp_path)
    kinds = [TrainSpec, GenerateSpec, LabelSpec, TrainSpec, TrainSpec, PluginStageSpec]
    assert [type(stage) for stage in recipe.stages] == kinds
    assert recipe.seed == 7
    assert recipe.stages[4].rollout.reward.judge == "length"
    assert recipe.evaluate[0].models == ("sft", "mixed", "initial")


def test_evaluate_may_be_missing(tmp_path):
    assert load(tmp_path, GOOD.split("evaluate:", maxsplit=1)[0]).evaluate == ()


def test_data_may_be_a_bare_name(tmp_path):
    long = GOOD.replace("data: pairs\n", "data: {name: pairs}\n")
    assert long != GOOD
    assert load(tmp_path) == load(tmp_path, long)


def test_a_number_like_1e_6_is_a_number(tmp_path):
    assert load(tmp_path).stages[3].train.lr == 1e-6


@pytest.mark.parametrize("word", ["yes", "on", "2024-01-01", "1:30", "null and void"])
def test_words_that_old_yaml_turns_into_other_types_stay_text(tmp_path, word):
    assert load(tmp_path, f"{GOOD}description: {word}\n").description == word


def test_an_alias_repeats_a_block(tmp_path):
    text = GOOD.replace("train: {lr: 1e-6", "train: &t {lr: 1e-6")
    text = text.replace("train: {lr_by_role: {critic: 1e-3}}", "train: *t")
    recipe = load(tmp_path, text)
    assert recipe.stages[4].train == recipe.stages[3].train


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    assert load(tmp_path, "\ufeff" + GOOD.lstrip()).name == "good"


def test_the_micro_batch_is_never_larger_than_the_batch_by_default(tmp_path):
    recipe = load(tmp_path)
    assert recipe.stages[3].train.micro_batch_size == 8
    assert recipe.stages[4].train.micro_batch_size == 16


def test_a_recipe_survives_being_written_and_read(tmp_path):
    recipe = load(tmp_path)
    text = yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert load(tmp_path, text) == recipe


# --- overrides -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("seed=3", lambda r: r.seed, 3),
        ("stages.3.with.beta=0.2", lambda r: r.stages[3].with_["beta"], 0.2),
        ("stages.sft.with.weight=2", lambda r: r.stages[0].with_["weight"], 2),
        ("stages.margin-0.5.with.beta=2e-1", lambda r: r.stages[3].with_["beta"], 0.2),
        ("stages.margin-0.5.data.limit=9", lambda r: r.stages[3].data.limit, 9),
        ("stages.sft.train.steps=9", lambda r: r.stages[0].train.steps, 9),
        ("evaluate.quiz.samples=4", lambda r: r.evaluate[0].samples, 4),
        ("evaluate.0.models=[sft]", lambda r: r.evaluate[0].models, ("sft",)),
        ("description=a=b", lambda r: r.description, "a=b"),
        ("evaluate=[]", lambda r: r.evaluate, ()),
    ],
)
def test_an_override_sets_a_value_by_index_or_name(tmp_path, override, read, value):
    assert read(load(tmp_path)) != value
    assert read(load(tmp_path, overrides=[override])) == value


def test_the_last_override_wins(tmp_path):
    assert load(tmp_path, overrides=["seed=1", "seed=2"]).seed == 2


def test_an_override_inside_a_short_form_keeps_its_name(tmp_path):
    recipe = load(tmp_path, overrides=["stages.margin-0.5.data.limit=9"])
    assert recipe.stages[3].data.name == "pairs"


# --- options ---------------------------------------------------------------------------------


def test_options_become_an_instance_of_the_plugin_class(tmp_path):
    stage = load(tmp_path).stages[3]
    found = registry().find("algorithm", stage.algorithm)
    assert build_options(found, stage.with_) == Margin(beta=0.5)


def test_lists_become_tuples_and_whole_numbers_become_floats():
    built = build_options(Copy, {"weight": 1, "betas": [0, 1], "copy": True, "cap": None})
    assert built == Copy(weight=1.0, betas=(0.0, 1.0), copy=True)
    assert isinstance(built.weight, float)


def test_a_class_without_fields_takes_no_options():
    assert isinstance(build_options(Online, {}), Online)
    with pytest.raises(RecipeError, match=r"online\.x: unknown option \(online takes no options\)"):
        build_options(Online, {"x": 1})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight": "0.1"}, "copy.weight: must be a number, not '0.1'"),
        ({"weight": True}, "copy.weight: must be a number, not true"),
        ({"weight": 1, "steps": 2.0}, "copy.steps: must be a whole number, not 2.0"),
        ({"weight": 1, "steps": True}, "copy.steps: must be a whole number, not true"),
        ({"weight": 1, "copy": 1}, "copy.copy: must be true or false, not 1"),
        (
            {"weight": 1, "kind": "hlaf"},
            "copy.kind: must be 'half' or 'full', not 'hlaf'; did you mean 'half'?",
        ),
        ({"weight": 1, "cap": 0}, "copy.cap: must be greater than 0, not 0"),
        ({"weight": 1, "betas": 0.9}, "copy.betas: must be a list, not 0.9"),
        ({"weight": 1, "betas": ["a"]}, "copy.betas.0: must be a number, not 'a'"),
        ({"weight": float("nan")}, "copy.weight: must be a finite number, not NaN"),
        ({}, "copy.weight: is missing: weight of the teacher"),
        ({"weight": 1, "cap": 0.5}, "copy: cap must be at least weight"),
    ],
)
def test_a_wrong_option_is_named_with_its_cause(given, message):
    with pytest.raises(RecipeError) as error:
        build_options(Copy, given)
    assert str(error.value) == message


def test_the_table_of_options_says_type_range_default_and_meaning():
    rows = {row.name: row for row in option_table(Copy)}
    assert list(rows) == ["weight", "kind", "cap", "betas", "steps", "names", "copy"]
    assert rows["weight"].required
    assert (rows["kind"].type, rows["kind"].default) == ("half | full", "half")
    assert (rows["cap"].type, rows["cap"].doc) == ("float | null, > 0", "largest value")
    assert rows["betas"].type == "list of float"
    assert rows["steps"].type == "int"
    assert option_table(Margin)[1].type == "float, >= 0, <= 0.5"


def test_the_schema_of_options_carries_bounds_and_meaning():
    schema = options_schema(Margin)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["beta"]["exclusiveMinimum"] == 0
    assert schema["properties"]["beta"]["description"] == "strength of the constraint"


def test_a_plugin_class_that_is_no_dataclass_is_refused():
    class Forgetful:
        name = "forgetful"
        beta: float = Margin.__dataclass_fields__["beta"]

    with pytest.raises(PluginError, match=r"Forgetful needs @dataclass\(frozen=True\)"):
        build_options(Forgetful, {})


def test_a_plugin_class_whose_types_cannot_be_checked_is_refused():
    @dataclass(frozen=True)
    class Odd:
        what: object.__class__ | subprocess.Popen = None

    with pytest.raises(PluginError, match="options of 'Odd' cannot be checked"):
        build_options(Odd, {})


# --- JSON Schema -----------------------------------------------------------------------------


def validator():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = recipe_schema(registry())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_describes_plugins_and_their_options():
    schema = recipe_schema(registry())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$defs"]["TrainSpec"]["properties"]["algorithm"]["anyOf"][0]["enum"] == [
        "copy",
        "groups",
        "margin",
        "marks",
        "moves",
        "once",
        "online",
        "siblings",
    ]
    choice = schema["$defs"]["TrainSpec"]["allOf"][2]
    assert choice["if"]["properties"] == {"algorithm": {"const": "margin"}}
    assert choice["then"]["properties"]["with"] == {"$ref": "#/$defs/algorithm.margin"}
    beta = schema["$defs"]["algorithm.margin"]["properties"]["beta"]
    assert beta["description"] == "strength of the constraint"
    assert schema["$defs"]["SamplingSpec"]["properties"]["temperature"]["description"]


def test_the_schema_accepts_the_good_recipe():
    plain = yaml.safe_load(GOOD.replace("1e-6", "0.000001").replace("1e-3", "0.001"))
    assert not [error.message for error in validator().iter_errors(plain)]


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        (0, {"with": {"weight": 1, "wieght": 2}}),
        (0, {"with": {}}),
        (1, {"sampels": 2}),
        (1, {"data": {"name": "toys", "with": {"size": 0}}}),
        (2, {"judge": "lenght"}),
        (3, {"with": {"beta": "0.5"}}),
        (5, {"stage": "mixx"}),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(stage, change):
    plain = copy.deepcopy(yaml.safe_load(GOOD.replace("1e-6", "0.000001").replace("1e-3", "0.001")))
    plain["stages"][stage].update(change)
    assert not validator().is_valid(plain)


def test_reading_a_recipe_does_not_import_transformers():
    code = "import sys, alignzoo.recipe.file; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_recipes_can_be_made_in_python_too():
    stage = {"name": "a", "algorithm": "margin", "with": {"beta": 1}, "data": "toys"}
    recipe = Recipe.model_validate({"name": "x", "model": "m", "stages": [stage]})
    assert isinstance(recipe.stages[0], TrainSpec)
