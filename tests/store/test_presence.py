"""What a recipe names and nobody can give is told at once, with its line, before any training."""

import json

import pytest
from tiny_models import WORDS, model_folder, word_tokenizer

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import AlignzooError
from alignzoo.contract.stage import ModelRef
from alignzoo.engine.models.load import load_model
from alignzoo.recipe.registry import load_plugins

RECIPE = """name: x
model: {model}
stages:
  - name: first
    algorithm: sft
    data: {data}
    train: {{steps: 1, batch_size: 1, micro_batch_size: 1}}
  - name: second
    algorithm: sft
    policy: {policy}
    data: {data}
    validation: {{data: {held}}}
"""


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model_folder("model", word_tokenizer(WORDS))
    row = json.dumps({"prompt": "the fox", "response": " eats"})
    (tmp_path / "good.jsonl").write_text(row + "\n")


def tried(cli, command, **names):
    usual = {"model": "model", "data": "good.jsonl", "policy": "first", "held": "good.jsonl"}
    with open("x.yaml", "w") as file:
        file.write(RECIPE.format(**(usual | names)))
    where = ("--output", "run") if command == "run" else ()
    return cli(command, "x.yaml", *where)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_all_files_and_folders_that_are_not_there_are_told_at_once_with_their_lines(
    cli, command, tmp_path
):
    names = {"data": "gone.jsonl", "held": "lost.parquet", "policy": "runs/nope/dpo"}
    status, _, err = tried(cli, command, model="./nofolder", **names)
    assert status == 2
    assert err.splitlines()[-5:] == [
        "x.yaml:2:8: model: ./nofolder: no such folder",
        "x.yaml:6:11: stages.0.data.name: gone.jsonl: no such file",
        "x.yaml:10:13: stages.1.policy: runs/nope/dpo: no such folder",
        "x.yaml:11:11: stages.1.data.name: gone.jsonl: no such file",
        "x.yaml:12:24: stages.1.validation.data.name: lost.parquet: no such file",
    ]
    assert not (tmp_path / "run" / "stages").exists()


@pytest.mark.parametrize("name", ["fatcs", "nobody/nothing"])
def test_a_model_that_only_the_hub_could_give_is_told_by_the_plan_and_stops_a_run_at_once(
    cli, name, tmp_path
):
    told = f"stages.1.policy: no stage, folder or plug-in's model is called '{name}'"
    status, out, _ = tried(cli, "plan", policy=name)
    assert status == 0
    assert told in out and "is offline" in out
    status, _, err = tried(cli, "run", policy=name)
    assert status == 2
    assert f"x.yaml:10:13: {told}" in err
    assert not (tmp_path / "run" / "stages").exists()


def test_a_plan_is_silent_about_models_of_stages_folders_plugins_and_the_hubs_cache(
    cli, tmp_path, monkeypatch
):
    import huggingface_hub.constants as hub

    snapshot = tmp_path / "hub" / "models--gpt2" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    refs = tmp_path / "hub" / "models--gpt2" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    for name in ("first", "model", "facts", "initial"):
        status, out, err = tried(cli, "plan", policy=name)
        assert status == 0, err
        assert "is called" not in out
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "is called" not in tried(cli, "plan", policy="gpt2")[1]
    assert "is called 'gpt3'" in tried(cli, "plan", policy="gpt3")[1]


def test_a_path_is_not_explained_as_a_name_of_the_hub():
    with pytest.raises(AlignzooError, match=r"^runs/nope/dpo: no such folder") as caught:
        load_model(load_plugins().hooks, ModelRef("runs/nope/dpo"), Role())
    assert "hub" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("./modle", "model"),
        ("./runs/dop/model", "runs/dpo/model"),
        ("./runs/dpo/modle", "runs/dpo/model"),
        ("fatcs", "facts"),
        ("modle", "model"),
        ("their/qwon-small", "their/qwen-small"),
    ],
)
@pytest.mark.parametrize("command", ["run", "generate"])
def test_a_misspelt_model_is_asked_after_where_a_near_one_is_here(
    cli, tmp_path, monkeypatch, command, name, near
):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--their--qwen-small" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    (tmp_path / "runs" / "dpo" / "model").mkdir(parents=True)
    if command == "run":
        status, _, err = tried(cli, "run", policy=name)
    else:
        status, _, err = cli("generate", name, "hello")
    assert status != 0
    assert f"did you mean '{near}'?" in err


def test_a_model_that_is_like_nothing_here_is_not_asked_after(cli):
    for name in ("./elsewhere", "fact.prompts.x", "nobody/nothing"):
        _, _, err = cli("generate", name, "hello")
        assert name in err and "did you mean" not in err


def test_data_that_only_the_hub_could_give_is_told_by_the_plan_and_stops_a_run_offline(
    cli, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    told = (
        "stages.1.validation.data.name: no stage, file or plug-in's data is called 'their/PairsOf'"
    )
    status, out, _ = tried(cli, "plan", held="their/PairsOf")
    assert status == 0
    assert told in out and "this machine is offline" in out
    status, _, err = tried(cli, "run", held="their/PairsOf")
    assert status == 2
    assert f"x.yaml:11:24: {told}" in err or f"x.yaml:12:24: {told}" in err
    assert not (tmp_path / "run" / "stages").exists()
    (tmp_path / "datasets" / "their___pairs_of").mkdir(parents=True)
    assert "is called" not in tried(cli, "plan", held="their/PairsOf")[1]


def test_data_of_the_hub_is_nobodys_fault_where_it_can_be_asked(cli, monkeypatch):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    assert "is called" not in tried(cli, "plan", held="their/pairs")[1]
