"""Chats that somebody rendered into plain prompts are found before anything is trained."""

import gzip
import json

import pytest
from small_models import run_stages, word_model, write_rows

from alignzoo.contract.errors import DataError
from alignzoo.plan import plan_recipe
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins

RENDERED = "<|start|> user hello <|end|> <|start|> assistant"
ROWS = [{"prompt": "hello", "response": " fine"}, {"prompt": RENDERED, "response": " bye"}]


def plan(model, data, **more):
    """Plan a stage on data, after one on other data."""
    first = {"name": "a", "algorithm": "sft", "data": data["first"]}
    block = {"name": data["name"], **more}
    second = {"name": "b", "algorithm": "sft", "policy": "a", "data": block}
    recipe = Recipe.model_validate({"name": "r", "model": model, "stages": [first, second]})
    return plan_recipe(recipe, load_plugins(), data["folder"])


@pytest.fixture
def files(tmp_path):
    """A model, and files with and without rendered chats."""
    packed = tmp_path / "d.jsonl.gz"
    packed.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in ROWS).encode()))
    return {
        "model": word_model(tmp_path / "m"),
        "first": write_rows(tmp_path / "first.jsonl", ROWS[:1]),
        "plain": write_rows(tmp_path / "d.jsonl", ROWS),
        "packed": str(packed),
        "folder": tmp_path / "run",
    }


@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_a_rendered_chat_in_a_plain_prompt_stops_the_plan_and_asks(files, kind):
    with pytest.raises(DataError, match=r"(:2|row 2): .*holds <\|start\|>.*data.special: parse"):
        plan(files["model"], files | {"name": files[kind]})
    assert plan(files["model"], files | {"name": files[kind]}, special="parse")
    assert plan(files["model"], files | {"name": files[kind]}, special="split")
    assert plan(files["model"], files | {"name": files[kind]}, limit=1)
    assert plan(files["model"], files | {"name": files[kind]}, max_bad=0.5)


def test_letters_of_turns_in_messages_and_answers_are_no_rendered_chat(files, tmp_path):
    chat = [{"role": "user", "content": RENDERED}]
    rows = [{"prompt": chat, "response": " bye"}, {"prompt": "hello", "response": RENDERED}]
    assert plan(files["model"], files | {"name": write_rows(tmp_path / "c.jsonl", rows)})


def test_a_run_stops_before_its_first_stage(files, tmp_path):
    stages = [
        {"name": name, "algorithm": "sft", "data": files[data], "train": {"steps": 1}}
        for name, data in (("a", "first"), ("b", "plain"))
    ]
    with pytest.raises(DataError, match="rendered chat"):
        run_stages(files["model"], tmp_path / "run", *stages)
    assert not list((tmp_path / "run").glob("stages/*"))
