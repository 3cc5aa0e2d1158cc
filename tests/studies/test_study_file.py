"""A study's file is checked whole before anything runs; every problem has a place and a remedy."""

from __future__ import annotations

import pytest
from study_files import FACTS, study_text

from alignzoo.contract.errors import RecipeError
from alignzoo.recipe.registry import load_plugins
from alignzoo.studies.file import load_study


@pytest.fixture(scope="module")
def registry():
    return load_plugins()


def opened(folder, registry, text):
    (folder / "world.yaml").write_text(FACTS)
    (folder / "study.yaml").write_text(text)
    return load_study(folder / "study.yaml", registry, folder / "nowhere")


def problems(folder, registry, text):
    with pytest.raises(RecipeError) as caught:
        opened(folder, registry, text)
    return [str(problem) for problem in caught.value.problems]


def test_a_sound_study_is_read_with_its_recipes(tmp_path, registry):
    found = opened(tmp_path, registry, study_text())
    assert found.recipes == {"facts": (tmp_path / "world.yaml",)}
    assert found.study.target("facts", "plain").model == "sft"
    assert found.study.target("facts", "dpo").model == "dpo"


@pytest.mark.parametrize(
    ("change", "place", "what"),
    [
        (("measure: win,", "mesure: win,"), "claims.0.mesure", "did you mean 'measure'?"),
        (("measure: win,", "measure: wim,"), "claims.0.measure", "no measure 'wim'; did you mean"),
        (("above: {dpo: plain}", "above: {dbo: plain}"), "claims.0", "no row 'dbo'; did you mean"),
        (("above: {dpo: plain}", "margin: .1"), "claims.0", "a claim has one of increasing, above"),
        (("by: us", "by: them"), "claims.1.by", "'paper' or 'us', not 'them'"),
        (("controls: [plain]", "controls: [plane]"), "controls.0", "did you mean 'plain'?"),
        (("of: dpo", "of: dpa"), "derived.final.of", "did you mean 'dpo'?"),
        (("[world.yaml]", "[worlds.yaml]"), "worlds.facts.recipes.0", "did you mean 'world.yaml'?"),
        (("plain: sft", "plain: sfd"), "worlds.facts.rows.plain", "did you mean 'sft'?"),
        (("plain: sft", "plane: sft"), "worlds.facts.rows.plane", "did you mean 'plain'?"),
        (("kl(sft)", "kl(dpo)"), "worlds.facts.measures.kl", "no evaluation measures kl(dpo)"),
        (("row: dpo,", "row: plain,"), "rows.1.row", "'plain' is there twice"),
        (("{win: win_rate,", "{final: win_rate,"), "worlds.facts.measures.final", "derived from"),
        (
            ("{win: win_rate,", "{win: {column: win_rate, benchmark: fact},"),
            "worlds.facts.measures.win",
            "no evaluation of its recipes fits (benchmarks there: facts)",
        ),
    ],
)
def test_a_fault_is_told_with_its_place_and_a_remedy(tmp_path, registry, change, place, what):
    text = study_text()
    assert change[0] in text
    told = problems(tmp_path, registry, text.replace(*change))
    assert [t for t in told if f": {place}: " in t and what in t], told
    assert all(":" in t and t.startswith(str(tmp_path / "study.yaml")) for t in told)


def test_a_row_whose_model_two_recipes_make_differently_must_say_which(tmp_path, registry):
    (tmp_path / "other.yaml").write_text(
        FACTS.replace("name: world", "name: other").replace("lr: 1e-3", "lr: 2e-3")
    )
    text = study_text().replace("[world.yaml]", "[world.yaml, other.yaml]")
    told = problems(tmp_path, registry, text)
    assert any("recipes 'world' and 'other' make 'dpo' differently" in t for t in told)
    named = text.replace(
        "{plain: sft}", "{plain: {model: sft, recipe: other}, dpo: {model: dpo, recipe: other}}"
    )
    assert opened(tmp_path, registry, named).study.target("facts", "dpo").recipe == "other"


def test_a_row_that_two_evaluations_measure_must_be_told_apart(tmp_path, registry):
    block = FACTS[FACTS.index("  - benchmark") :]
    (tmp_path / "two.yaml").write_text(FACTS + block.replace("size: 4", "size: 6"))
    text = study_text().replace("[world.yaml]", "[two.yaml]")
    told = problems(tmp_path, registry, text)
    assert any("evaluations 1 and 2 of recipe 'world' both measure 'dpo'" in t for t in told)
    apart = text.replace(
        "{win: win_rate, kl: kl(sft)}", "{win: {column: win_rate, with: {size: 6}}}"
    )
    assert opened(tmp_path, registry, apart)


def test_a_recipe_with_a_fault_is_told_at_its_own_place(tmp_path, registry):
    (tmp_path / "broken.yaml").write_text(FACTS.replace("algorithm: dpo", "algorithm: dpp"))
    told = problems(tmp_path, registry, study_text().replace("[world.yaml]", "[broken.yaml]"))
    assert told[0].startswith(f"{tmp_path / 'broken.yaml'}:")
