"""The KL column of a leaderboard where one model forbids what the other allows."""

import json
import math

from alignzoo.contract.progress import Silent
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.run import run_recipe
from alignzoo.stages.evaluation.ruled import finite_kl


def test_a_kl_that_is_infinite_for_a_prompt_has_no_figure_and_says_why():
    said = []
    assert finite_kl("sft", (0.5, 0.25), said.append) == (0.5, 0.25)
    assert said == []
    assert finite_kl("sft", (0.5, math.inf, math.nan), said.append) == (None, None, None)
    assert len(said) == 1
    assert "kl(sft) has no figure: it is not finite for 2 of 3 prompts" in said[0]


def test_models_with_equal_answers_and_another_kl_have_results_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    train = {"steps": 1, "batch_size": 4, "micro_batch_size": 4}
    data = {"name": "facts.sft", "with": {"size": 4}}
    stages = [
        {"name": name, "algorithm": "sft", "data": data, "train": {**train, "lr": lr}}
        for name, lr in (("near", 1e-6), ("far", 5e-6))
    ]
    block = {"benchmark": "facts", "with": {"size": 2}, "kl_to": ["initial"]}
    greedy = {"max_new_tokens": 4, "temperature": 0}
    parts = {"name": "r", "model": "facts", "threads": 1, "stages": stages}
    recipe = Recipe.model_validate({**parts, "evaluate": [{**block, "sampling": greedy}]})
    run_recipe(recipe, "", load_plugins(), tmp_path / "run", Silent())
    kept = [tmp_path / "run" / "evaluations" / "01-facts" / name for name in ("near", "far")]
    answers = {(folder / "answers.jsonl").read_text() for folder in kept}
    rows = [json.loads((folder / "scores.json").read_text())["row"] for folder in kept]
    assert len(answers) == 1
    assert rows[0]["columns"]["kl(initial)"] != rows[1]["columns"]["kl(initial)"]
    assert rows[0]["section"] == rows[1]["section"]
    assert rows[0]["result"] != rows[1]["result"]
