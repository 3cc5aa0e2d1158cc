"""The recipes of the bundled studies: each can run, and all have the same parents."""

import pytest
from source_tree import ROOT

from alignzoo.recipe.blocks import LabelSpec, TrainSpec
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins

FACTS = sorted((ROOT / "recipes" / "studies").glob("*_facts.yaml"))
TABLE_1 = ROOT / "recipes" / "studies" / "table1_facts.yaml"
CREDIT = ROOT / "recipes" / "credit_granularity.yaml"
PAPER = sorted((ROOT / "recipes" / "paper").glob("*.yaml"))
PARENTS = ("sft", "answers", "pairs", "dpo", "reverse")
REGISTRY = load_plugins()


def stages(path):
    return {stage.name: stage for stage in load_recipe(path, REGISTRY).stages}


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_a_recipe_of_the_paper_is_sound_without_its_model(path):
    recipe = load_recipe(path, REGISTRY)
    assert recipe.precision == ("bf16" if recipe.stages else "fp32")


@pytest.mark.parametrize("path", [*FACTS, CREDIT], ids=lambda p: p.stem)
def test_every_study_of_the_embedded_world_shares_the_parents_of_table_1(path):
    wanted, found = stages(TABLE_1), stages(path)
    needed = PARENTS if path.stem != "table4_facts" else PARENTS[:-1]  # no policy is trained there
    assert {name: found[name] for name in needed} == {name: wanted[name] for name in needed}


@pytest.mark.parametrize(
    "path", [*(p for p in FACTS if p.stem != "table4_facts"), CREDIT], ids=lambda p: p.stem
)
def test_every_study_measures_its_policies_alike(path):
    recipe = load_recipe(path, REGISTRY)
    (block,) = (block for block in recipe.evaluate if block.benchmark == "facts")
    measured = (block.with_, block.baseline, block.samples, block.kl_to, block.sampling)
    table1 = load_recipe(TABLE_1, REGISTRY).evaluate[0]
    assert measured == (
        table1.with_,
        table1.baseline,
        table1.samples,
        table1.kl_to,
        table1.sampling,
    )


def test_a_row_with_the_same_name_is_the_same_model_in_every_study():
    names = ("ppo", "reward-model", "dpo-strong", "aligndistil-off", "aligndistil-on")
    wanted = stages(TABLE_1)
    for path in FACTS:
        found = stages(path)
        assert all(found[name] == wanted[name] for name in names if name in found)


def test_the_constants_of_table_3_are_the_papers():
    found = stages(ROOT / "recipes" / "studies" / "table3_facts.yaml")
    weights = {name: 0.1 / s.with_["beta"] for name, s in found.items() if name.startswith("w")}
    assert weights == {name: pytest.approx(float(name[1:]), abs=1e-4) for name in weights}
    assert all(found[name].train == found["aligndistil-off"].train for name in weights)


def test_held_out_pairs_are_of_other_questions_by_the_same_annotator():
    found = stages(ROOT / "recipes" / "studies" / "table2_facts.yaml")
    held, seen = found["held-out-pairs"], found["pairs"]
    assert isinstance(held, LabelSpec)
    assert (held.judge, held.choose, held.with_) == (seen.judge, seen.choose, seen.with_)
    data = {found[name].data.name for name in ("held-out-answers", "answers")}
    assert data == {"facts.test", "facts.prompts"}
    assert found["held-out-answers"].policy == found["answers"].policy
    trained = [s for s in found.values() if isinstance(s, TrainSpec)]
    assert all("held-out-pairs" not in (s.data.name,) for s in trained)
