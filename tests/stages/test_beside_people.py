"""Judges and rewards beside people, as rows of an evaluation, with figures worked out by hand."""

import json

import pytest
from alignzoo_facts.oracle import Oracle
from alignzoo_facts.people import SYSTEMS, People
from small_models import write_rows
from tiny_models import model_folder, score, tiny_llama, word_tokenizer

from alignzoo.contract.errors import DataError, RecipeError
from alignzoo.contract.evaluation import Answer
from alignzoo.contract.progress import Silent
from alignzoo.contract.types import PromptSample
from alignzoo.judging.quality.figures import HumanPair, agreements_of_people, human_quality
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.run import run_recipe

# instruction, output_1, output_2, generator, labels
PAIRS = [
    ("the fox", " eats a berry", " runs", "a", (1, 1, 2, 1)),
    ("the owl sees", " the fox", " a berry a berry", "b", (2, 2, 2, 2)),
    ("the owl", " runs", " eats", "a", (1, 2, 2, 2)),
    ("a fox runs", " the owl sees a fox", " the owl eats", "b", (1, 1, 1, 2)),
    ("a berry", " sees", " the the the", "c", (2, 1, 2, 2)),
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


def run(folder, data, rewards, **more):
    """`scores.json` by row, of a run of one block."""
    block = {"benchmark": "pairwise", "data": data, "rewards": rewards}
    what = {"name": "r", "model": "facts", "threads": 1, "stages": [], "evaluate": [block], **more}
    run_recipe(Recipe.model_validate(what), "", load_plugins(), folder / "run", Silent())
    kept = folder / "run" / "evaluations" / "01-pairwise"
    return {name: json.loads((kept / name / "scores.json").read_text()) for name in rewards} | {
        "humans": json.loads((kept / "humans" / "scores.json").read_text())
    }


def annotations(folder):
    rows = [
        {"instruction": i, "output_1": one, "output_2": two, "generator": g, "preference": label}
        for i, one, two, g, labels in PAIRS
        for label in labels
    ]
    return write_rows(folder / "cross.jsonl", rows)


def figure(found, name):
    return found["row"]["columns"][name]["mean"]


def test_a_scalar_head_is_held_against_people_with_the_figures_worked_out_by_hand(tmp_path):
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    scorer = model_folder(tmp_path / "scorer", tokenizer, head="scalar", seed=3)
    found = run(tmp_path, {"name": annotations(tmp_path)}, {"scorer": {"model": str(scorer)}})
    model = tiny_llama(head="scalar", seed=3)

    def value(prompt, text):
        return score(model, [*tokenizer(prompt + text)["input_ids"], 1])

    said = [1.0 + (value(i, two) > value(i, one)) for i, one, two, _, _ in PAIRS]
    most = [1.0, 2.0, 2.0, 1.0, 2.0]
    agreement = [100.0 * (x == y) for x, y in zip(said, most, strict=True)]
    assert found["scorer"]["values"]["agreement"] == agreement
    assert figure(found["scorer"], "agreement") == pytest.approx(sum(agreement) / 5)
    assert figure(found["scorer"], "price") == 0
    # One person against the most frequent label of the three others.
    alone = [[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 0], [1, 0, 1, 1]]
    humans = found["humans"]
    assert humans["values"]["agreement"] == [100.0 * sum(row) / 4 for row in alone]
    assert [figure(humans, n) for n in ("price", "spearman", "pearson")] == pytest.approx(
        [300, 1, 1]
    )


def test_each_of_the_people_is_held_against_the_others_alone():
    split = HumanPair("a", "i", "x", "y", (1.0, 1.0, 2.0, 2.0))
    clear = HumanPair("b", "i", "x", "y", (1.0, 1.0, 1.0, 1.0))
    alone = HumanPair("c", "i", "x", "y", (1.0,))
    assert agreements_of_people([split, clear, alone]) == [0.0, 1.0, None]
    assert human_quality([split, clear]).agreement == 50.0  # the official column: their mean


def test_judges_of_the_embedded_world_rank_as_they_were_made(tmp_path):
    rewards = {
        "taste": {"judge": "facts.annotator"},
        "noisy": {"judge": {"name": "facts.annotator", "with": {"length_bias": 0, "noise": 3}}},
        "length": {"judge": {"name": "facts.annotator", "with": {"scale": 0, "length_bias": 1}}},
    }
    data = {"name": "facts.people", "with": {"size": 300}}
    found = run(tmp_path, data, rewards)
    agree = {name: figure(row, "agreement") for name, row in found.items()}
    assert agree["length"] < agree["noisy"] < agree["humans"] < agree["taste"]
    assert figure(found["length"], "longer") == 1
    assert figure(found["taste"], "spearman") > 0.8 > figure(found["length"], "spearman")


def test_people_agree_as_often_as_their_known_noise_has_it_and_systems_have_their_quality():
    pairs = list(People(size=1500, people=4, length_bias=0.0).samples(0))
    answers = [
        [Answer(PromptSample(p.prompt, p.meta), r, len(r.text.split())) for r in p.responses]
        for p in pairs
    ]
    values = [[s.value for s in Oracle().score(both)] for both in answers]
    by_system = {
        name: [v[1] for p, v in zip(pairs, values, strict=True) if p.meta["generator"] == name]
        for name in SYSTEMS
    }
    mean = {name: sum(x) / len(x) for name, x in by_system.items()}
    assert mean["worst-of-4"] < mean["worst-of-2"] < mean["best-of-2"] < mean["best-of-12"]
    equal = [p.meta["preferences"] for p, v in zip(pairs, values, strict=True) if v[0] == v[1]]
    share = sum(x == 2 for labels in equal for x in labels) / (4 * len(equal))
    assert len(equal) > 100
    assert share == pytest.approx(0.5, abs=0.08)  # where nothing speaks for either
    far = [p.meta["preferences"] for p, v in zip(pairs, values, strict=True) if v[1] - v[0] >= 3]
    assert (
        sum(x == 2 for labels in far for x in labels) / (4 * len(far)) > 0.94
    )  # sigmoid(3) = .953
    assert [p.prompt for p in People(size=9).samples(1)] == [
        p.prompt for p in list(People(size=20).samples(1))[:9]
    ]


def test_data_that_nobody_compared_are_refused(tmp_path):
    with pytest.raises(DataError, match="no pair that people compared"):
        run(tmp_path, {"name": "facts.test", "with": {"size": 3}}, {"o": {"judge": "facts.oracle"}})


@pytest.mark.parametrize(
    ("block", "cause"),
    [
        ("{benchmark: pairwise, data: facts.people}", "add `rewards:`"),
        ("{benchmark: pairwise, rewards: {a: {judge: facts.oracle}}}", "add `data:`"),
        (
            "{benchmark: pointwise, data: facts.people, rewards: {a: {judge: facts.oracle}}}",
            "grades single answers",
        ),
        (
            "{benchmark: pairwise, data: facts.people, rewards: {humans: {judge: facts.oracle}}}",
            "row of the people",
        ),
        (
            "{benchmark: pairwise, data: facts.people, judge: facts.oracle, "
            "rewards: {a: {judge: facts.oracle}}}",
            "the rows are the judges",
        ),
        (
            "{benchmark: pairwise, data: facts.people, rewards: {a: {judge: facts.orakle}}}",
            "did you mean 'facts.oracle'",
        ),
        (
            "{benchmark: preferences, data: p.jsonl, rewards: {a: {judge: {name: openai, "
            "with: {model: m}}}}}",
            "scores no single answer",
        ),
        (
            "{benchmark: preferences, data: p.jsonl, rewards: {a: {judge: facts.oracle, "
            "model: initial}}}",
            "exactly one of 'model' and 'judge'",
        ),
    ],
)
def test_a_block_that_nobody_can_be_held_against_is_refused_with_its_cause(tmp_path, block, cause):
    (tmp_path / "p.jsonl").write_text("")
    file = tmp_path / "r.yaml"
    file.write_text(f"name: r\nmodel: facts\nstages: []\nevaluate:\n  - {block}\n")
    with pytest.raises(RecipeError) as error:
        load_recipe(file, load_plugins())
    assert cause in str(error.value)
