"""Recipes of studies have the settings that their tuning found best, and share their parents."""

import json
import statistics
from collections import defaultdict

import pytest
import yaml
from source_tree import ROOT

RECIPES = ROOT / "recipes"
TRIALS = json.loads(
    (ROOT / "benchmarks" / "results" / "distillation_controls_rates.json").read_text("utf-8")
)["trials"]
DECIDES = {"facts": "true_reward", "stories": "score"}
ROWS = sorted({(trial["recipe"], trial["row"]) for trial in TRIALS})
NAMES = ["/".join(row) for row in ROWS]


def stages(name):
    content = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    return {stage["name"]: stage for stage in content["stages"]}


def best(recipe, row):
    """The setting with the highest mean over the seeds, of those that all seeds have tried."""
    worth, seeds = defaultdict(dict), set()
    for trial in TRIALS:
        if (trial["recipe"], trial["row"]) == (recipe, row):
            value = trial["columns"][DECIDES[trial["benchmark"]]]
            worth[tuple(sorted(trial["setting"].items()))][trial["seed"]] = value
            seeds.add(trial["seed"])
    whole = {k: statistics.fmean(v.values()) for k, v in worth.items() if v.keys() == seeds}
    return dict(max(whole, key=whole.get))


@pytest.mark.parametrize(("recipe", "row"), ROWS, ids=NAMES)
def test_a_row_has_the_setting_that_was_best_on_the_tuning_seeds(recipe, row):
    stage, setting = stages(recipe)[row], best(recipe, row)
    assert float(stage["train"]["lr"]) == setting.pop("lr")
    assert {name: float(stage["with"][name]) for name in setting} == setting


@pytest.mark.parametrize(("recipe", "row"), ROWS, ids=NAMES)
def test_no_seed_that_a_study_measures_was_tuned_on(recipe, row):
    tried = {t["seed"] for t in TRIALS if (t["recipe"], t["row"]) == (recipe, row)}
    for path in (RECIPES / "studies").glob("*.yaml"):
        worlds = yaml.safe_load(path.read_text(encoding="utf-8")).get("worlds", {})
        for world in worlds.values():
            if f"{recipe}.yaml" in world["recipes"]:
                assert max(tried) < world["seed"]


def test_stages_of_one_name_are_equal_in_all_recipes_of_a_world_so_that_one_training_serves_all():
    worlds = {
        "stories": sorted(path.stem for path in (RECIPES / "studies").glob("*_stories.yaml")),
        "facts": ["table1_facts", "../distillation_controls"],
    }
    assert len(worlds["stories"]) >= 5
    shared = {"sft", "answers", "samples", "pairs", "dpo", "reverse", "dpo-strong", "reward-model"}
    for names in worlds.values():
        found = {}
        for name in names:
            for stage, content in stages(f"studies/{name}").items():
                if stage in shared:
                    assert found.setdefault(stage, content) == content, (name, stage)
        assert {"pairs", "dpo", "reverse"} <= set(found)
