"""A sequence that no model of the stage can read is refused before anything is loaded."""

import json

import pytest
from recipe_plugins import registry

from alignzoo.contract.errors import RecipeError
from alignzoo.recipe.file import load_recipe

STAGE = "  - {{name: {name}, algorithm: margin, data: {{name: toys{data}}}{more}}}\n"


def folder(path, **config):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


def problems(tmp_path, model, *stages):
    text = f"name: r\nmodel: {model}\nstages:\n" + "".join(stages)
    (tmp_path / "recipe.yaml").write_text(text)
    try:
        load_recipe(tmp_path / "recipe.yaml", registry())
    except RecipeError as error:
        return [str(problem).split(": ", 1)[1] for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "config",
    [
        {"max_position_embeddings": 512},
        {"n_positions": 512},
        {"text_config": {"max_position_embeddings": 512}},
    ],
    ids=["llama", "gpt2", "multimodal"],
)
def test_a_max_length_beyond_the_context_is_refused_with_both_numbers(tmp_path, config):
    model = folder(tmp_path / "m", **config)
    long = STAGE.format(name="a", data=", max_length: 513", more="")
    fits = STAGE.format(name="a", data=", max_length: 512", more="")
    (line,) = problems(tmp_path, model, long)
    assert line == (
        f"stages.0.data.max_length: 513 is more than the context of '{model}', which is 512"
    )
    assert problems(tmp_path, model, fits) == []


def test_the_context_is_that_of_the_model_a_stage_descends_from_and_of_its_other_roles(tmp_path):
    wide = folder(tmp_path / "wide", max_position_embeddings=4096)
    narrow = folder(tmp_path / "narrow", max_position_embeddings=100)
    first = STAGE.format(name="a", data="", more=f", policy: {narrow}")
    long = STAGE.format(name="b", data=", max_length: 200", more=", policy: a")
    assert "which is 100" in problems(tmp_path, wide, first, long)[0]
    reference = f", roles: {{reference: {narrow}}}"
    long = STAGE.format(name="b", data=", max_length: 200", more=reference)
    assert "which is 100" in problems(tmp_path, wide, long)[0]
    held_out = ", validation: {data: {name: toys, max_length: 5000}}"
    (line,) = problems(tmp_path, wide, STAGE.format(name="b", data="", more=held_out))
    assert line.startswith("stages.0.validation.data.max_length: 5000 is more than")


def test_what_no_config_says_is_left_to_loading(tmp_path):
    long = STAGE.format(name="a", data=", max_length: 5000", more="")
    assert problems(tmp_path, "no-such-folder", long) == []
    assert problems(tmp_path, folder(tmp_path / "m", vocab_size=3), long) == []
    (tmp_path / "m" / "config.json").write_text("{")
    assert problems(tmp_path, tmp_path / "m", long) == []
