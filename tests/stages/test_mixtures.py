"""`data: [a, {name: b, weight: 2}]`: what a stage learns from several sources."""

import json
from collections import Counter

import pytest
import yaml

from alignzoo.contract.errors import DataError, RecipeError
from alignzoo.contract.progress import Silent
from alignzoo.data.mixture import drawn, times, told
from alignzoo.recipe.file import load_recipe, recipe_schema
from alignzoo.recipe.registry import load_plugins
from alignzoo.run import run_recipe
from alignzoo.store.folders import resolved
from alignzoo.store.identity import stage_identity
from alignzoo.store.inputs import data_of, stages_read
from alignzoo.store.sizes import known_items

REGISTRY = load_plugins()
RECIPE = """
name: p
model: facts
seed: 5
threads: 1
stages:
  - name: sft
    algorithm: sft
    data: DATA
    train: {batch_size: 8, micro_batch_size: 8, lr: 1e-3, epochs: EPOCHS}
"""
MIXED = "[a.jsonl, {name: b.jsonl, weight: WEIGHT}]"


class Told(Silent):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Eight rows of one word, and four of another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    for name, word, n in (("a", "fox", 8), ("b", "owl", 4)):
        rows = ({"prompt": f"{word} {k} ?", "response": f"the {word} ."} for k in range(n))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return tmp_path


def load(place, data, epochs=1):
    file = place / "recipe.yaml"
    file.write_text(RECIPE.replace("DATA", data).replace("EPOCHS", str(epochs)))
    return load_recipe(file, REGISTRY)


def run(place, data, name, epochs=1):
    recipe, progress = load(place, data, epochs), Told()
    run_recipe(recipe, "", REGISTRY, place / name, progress)
    log = (place / name / "stages" / "01-sft" / "metrics.jsonl").read_text()
    return log, progress.said


# --- which items -----------------------------------------------------------------------------


def test_a_weight_says_how_often_each_item_stands_in_a_pass():
    assert drawn("a", 4, 1.0, "k") == [0, 1, 2, 3]
    assert drawn("a", 3, 2.0, "k") == [0, 0, 1, 1, 2, 2]
    some = Counter(drawn("a", 10, 2.5, "k"))
    assert sorted(some.values()) == [2] * 5 + [3] * 5
    half = drawn("a", 10, 0.5, "k")
    assert len(half) == len(set(half)) == 5 and half == sorted(half)


def test_which_items_come_once_more_follows_from_the_key():
    assert drawn("a", 100, 0.3, "5 mixture 1") == drawn("a", 100, 0.3, "5 mixture 1")
    assert drawn("a", 100, 0.3, "5 mixture 1") != drawn("a", 100, 0.3, "6 mixture 1")


def test_a_weight_that_leaves_nothing_is_refused():
    with pytest.raises(DataError, match=r"b: weight 0.01 of 20 items leaves none; raise the"):
        drawn("b", 20, 0.01, "k")
    assert times(20, 0.01) == 0


def test_the_account_has_every_sources_count_and_share():
    assert told([("a", 8, 1.0, 8), ("b", 4, 2.0, 8)]).splitlines() == [
        "a mixture of 16 items in a pass",
        "  a: 8 x 1 = 8 (50.0%)",
        "  b: 4 x 2 = 8 (50.0%)",
    ]


# --- in a run --------------------------------------------------------------------------------


def test_a_mixture_without_weights_learns_what_one_file_with_all_rows_does(place):
    both = (place / "a.jsonl").read_text() + (place / "b.jsonl").read_text()
    (place / "both.jsonl").write_text(both)
    mixed, said = run(place, "[a.jsonl, b.jsonl]", "mixed", epochs=2)
    assert mixed == run(place, "both.jsonl", "one", epochs=2)[0]
    assert any("a mixture of 12 items in a pass" in text for text in said)


def test_a_weight_of_two_learns_what_a_file_with_every_row_twice_does(place):
    rows = (place / "b.jsonl").read_text().splitlines(keepends=True)
    twice = "".join(row * 2 for row in rows)
    (place / "twice.jsonl").write_text((place / "a.jsonl").read_text() + twice)
    mixed, said = run(place, MIXED.replace("WEIGHT", "2"), "mixed")
    assert mixed == run(place, "twice.jsonl", "one")[0]
    assert any("b.jsonl: 4 x 2 = 8 (50.0%)" in text for text in said)


def test_every_source_is_counted_row_by_row_as_ever(place):
    _, said = run(place, MIXED.replace("WEIGHT", "2"), "mixed")
    assert any("8 rows of a.jsonl, all used" in text for text in said)
    assert any("4 rows of b.jsonl, all used" in text for text in said)


def test_a_plan_counts_the_items_of_a_pass(place):
    spec = load(place, MIXED.replace("WEIGHT", "2.5")).stages[0]
    assert known_items(spec, REGISTRY, {}) == 8 + 10


def identity(place, data):
    recipe = load(place, data)
    return stage_identity(recipe.stages[0], recipe, REGISTRY, {})


def test_sources_weights_and_their_bytes_are_part_of_the_identity(place):
    one = identity(place, MIXED.replace("WEIGHT", "2"))
    assert one == identity(place, MIXED.replace("WEIGHT", "2"))
    assert one != identity(place, MIXED.replace("WEIGHT", "3"))
    assert one != identity(place, "[a.jsonl, a.jsonl]")
    with (place / "b.jsonl").open("a") as file:
        file.write('{"prompt": "new ?", "response": "yes"}\n')
    assert one != identity(place, MIXED.replace("WEIGHT", "2"))


def test_names_of_sources_are_no_part_of_it(place):
    (place / "c.jsonl").write_bytes((place / "a.jsonl").read_bytes())
    assert identity(place, "[a.jsonl, b.jsonl]") == identity(place, "[c.jsonl, b.jsonl]")


def test_prompts_of_a_rollout_come_from_all_sources(place):
    file = place / "recipe.yaml"
    rollout = "rollout: {prompts: 4, sampling: {max_new_tokens: 4}}, roles: {teacher: initial}"
    stage = f"{{name: g, algorithm: gkd, data: {MIXED}, {rollout}, train: {{steps: 1}}}}"
    file.write_text(f"name: p\nmodel: facts\nstages:\n  - {stage}\n".replace("WEIGHT", "3"))
    progress = Told()
    run_recipe(load_recipe(file, REGISTRY), "", REGISTRY, place / "r", progress)
    assert any("b.jsonl: 4 x 3 = 12 (60.0%)" in text for text in progress.said)


# --- what is written -------------------------------------------------------------------------


def test_the_recipe_that_a_run_keeps_is_a_list_and_loads_as_the_same(place):
    recipe = load(place, MIXED.replace("WEIGHT", "2"))
    written = resolved(recipe)
    assert [part["name"] for part in written["stages"][0]["data"]] == ["a.jsonl", "b.jsonl"]
    (place / "again.yaml").write_text(yaml.safe_dump(written))
    assert load_recipe(place / "again.yaml", REGISTRY) == recipe
    assert "parts" not in resolved(load(place, "a.jsonl"))["stages"][0]["data"]


def test_each_stage_of_a_mixture_is_one_that_the_stage_reads(place):
    first = "  - {name: sft0, stage: generate, data: a.jsonl}\n"
    text = RECIPE.replace("DATA", "[sft0, b.jsonl]").replace("EPOCHS", "1")
    (place / "recipe.yaml").write_text(text.replace("stages:\n", f"stages:\n{first}"))
    recipe = load_recipe(place / "recipe.yaml", REGISTRY)
    assert list(data_of(recipe.stages[1])) == ["data.0", "data.1"]
    assert stages_read(recipe.stages[1], recipe) == ["sft0"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("[]", r"data: names no data"),
        ("[[a.jsonl]]", r"data: a list inside a list"),
        ("[a.jsonl, {name: b.jsonl, weigth: 2}]", r"9:37: stages\.0\.data\.1\.weigth: unknown key"),
        ("[a.jsonl, {name: b.jsonl, weight: 0}]", r"stages\.0\.data\.1\.weight: "),
        ("[a.jsonl, sft]", r"stages\.0\.data\.1\.name: stage 'sft' cannot use itself"),
        ("{name: a.jsonl, weight: 2}", r"data\.weight: counts in a list of data alone"),
        ("a.jsonl, validation: {data: [a.jsonl]}", "a list is for the data of a train stage"),
        ("[a.jsonl, {name: facts.sft, with: {sise: 3}}]", r"data\.1\.with\.sise: unknown option"),
    ],
)
def test_what_is_wrong_in_a_list_is_named_with_its_place(place, data, words):
    inline = (
        RECIPE.replace("DATA", data)
        .replace("EPOCHS", "1")
        .replace(", validation", "\n    validation")
    )
    (place / "recipe.yaml").write_text(inline.replace("data: [[", "data:  [["))
    with pytest.raises(RecipeError, match=words):
        load_recipe(place / "recipe.yaml", REGISTRY)


def test_prompts_of_one_rollout_are_read_alike(place):
    data = "[a.jsonl, {name: b.jsonl, max_prompt_length: 9}]"
    rollout = "rollout: {prompts: 4}, roles: {teacher: initial}"
    text = f"name: p\nmodel: facts\nstages: [{{name: g, algorithm: gkd, data: {data}, {rollout}}}]"
    (place / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match="are read alike; give all one max_prompt_length"):
        load_recipe(place / "recipe.yaml", REGISTRY)


def test_an_editor_accepts_a_list(place):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    validator = jsonschema.Draft202012Validator(recipe_schema(REGISTRY))
    for data, fits in [(["a.jsonl", {"name": "b", "weight": 2}], True), ([], False)]:
        stage = {"name": "a", "algorithm": "sft", "data": data}
        assert validator.is_valid({"name": "p", "model": "facts", "stages": [stage]}) is fits
