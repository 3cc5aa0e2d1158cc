"""`log_samples` in a recipe: on by default, outside a stage's identity, off when asked."""

import json

import pytest
from kill_recipes import write_recipe

from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.store.folders import default_folder

LEFT_ALONE = ("metrics.jsonl", "model/model.safetensors")


def rows(folder):
    file = folder / "logged_samples.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("kind", "stage", "last", "prompts"),
    [
        ("train offline", "dpo", 5, 1),
        ("train on-policy", "grpo", 4, 8),
    ],  # one: all are unknown words
)
def test_samples_are_logged_by_default_and_change_nothing(
    cli, tmp_path, monkeypatch, kind, stage, last, prompts
):
    file = write_recipe(kind, tmp_path)
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    assert cli("run", file, "--output", tmp_path / "on")[0] == 0
    off = ("--set", f"stages.{stage}.log_samples=false", "--output", tmp_path / "off")
    assert cli("run", file, "--fresh", *off)[0] == 0
    on, off = (tmp_path / name / "stages" / f"01-{stage}" for name in ("on", "off"))
    for name in LEFT_ALONE:
        assert (on / name).read_bytes() == (off / name).read_bytes()
    assert not (off / "logged_samples.jsonl").exists()
    logged = rows(on)
    assert {r["step"] for r in logged} == {round(k * last / 4) for k in range(5)}
    assert len({(r["prompt"], r["asked"]) for r in logged}) == prompts
    assert all(r["tokens"] <= 64 and isinstance(r["answer"], str) for r in logged)


def test_turning_samples_off_makes_no_other_stage_and_no_other_folder(cli, tmp_path, monkeypatch):
    file = write_recipe("train offline", tmp_path)
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    assert cli("run", file, "--output", tmp_path / "a")[0] == 0
    words = ("--set", "stages.dpo.log_samples=null", "--output", tmp_path / "b")
    assert cli("run", file, *words)[0] == 0
    record = json.loads((tmp_path / "b/run.json").read_text())
    assert record["pieces"]["dpo"]["status"] == "reused"
    assert rows(tmp_path / "b/stages/01-dpo") == rows(tmp_path / "a/stages/01-dpo")


@pytest.mark.parametrize("value", [False, None, {"prompts": 0}, {"prompts": 3, "at": 2}])
def test_log_samples_decides_no_folder_and_survives_being_written(value):
    train = {"name": "a", "algorithm": "sft", "data": "x"}
    plain = Recipe.model_validate({"name": "n", "model": "facts", "stages": [train]})
    other = Recipe.model_validate(
        {"name": "n", "model": "facts", "stages": [train | {"log_samples": value}]}
    )
    assert default_folder(plain, load_plugins()) == default_folder(other, load_plugins())
    again = Recipe.model_validate(other.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert again == other
    assert other.stages[0].log_samples.prompts == (value or {}).get("prompts", 0)


def test_a_model_with_a_scalar_head_has_nothing_to_say(cli, tmp_path, monkeypatch):
    file = write_recipe("train offline", tmp_path)
    text = file.read_text().replace("algorithm: dpo", "algorithm: reward_model")
    file.write_text(text)
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    assert cli("run", file, "--output", tmp_path / "run")[0] == 0
    assert not (tmp_path / "run/stages/01-dpo/logged_samples.jsonl").exists()
