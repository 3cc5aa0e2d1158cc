"""A judge without its key is found before anything trains, and `plan` does not mind."""

import pytest
import yaml

from alignzoo.cli.looking import doctor
from alignzoo.recipe.registry import load_plugins

SFT = {
    "name": "sft",
    "algorithm": "sft",
    "data": {"name": "facts.sft", "with": {"size": 32}},
    "train": {"steps": 1, "batch_size": 8},
}
JUDGE = {"name": "openai", "with": {"model": "m"}}


def written(tmp_path, stages, evaluate=()):
    recipe = {"name": "r", "model": "facts", "threads": 1, "stages": [SFT, *stages]}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**recipe, "evaluate": list(evaluate)}))
    return file


def online(reward):
    return {
        "name": "it",
        "algorithm": "dpo",
        "policy": "sft",
        "data": "facts.prompts",
        "rollout": {"prompts": 64, "samples_per_prompt": 2, "reward": reward},
    }


JUDGED = {"benchmark": "pairwise", "models": ["sft"], "baseline": "initial", "judge": JUDGE}
ANSWERS = {"name": "a", "stage": "generate", "policy": "sft", "data": "facts.prompts", "samples": 2}
NEEDY = {
    "stages.1.rollout.reward.judge": ([online({"judge": "openai", "with": {"model": "m"}})], []),
    "stages.1.rollout.reward.1.judge": (
        [online([{"judge": "facts.oracle"}, {"judge": [JUDGE, "facts.oracle"]}])],
        [],
    ),
    "stages.2.judge": (
        [ANSWERS, {"name": "l", "stage": "label", "data": "a", "judge": "openai",
                   "with": {"model": "m"}}],
        [],
    ),
    "evaluate.0.judge.0": ([], [JUDGED]),
}  # fmt: skip


@pytest.mark.parametrize("place", NEEDY)
def test_a_missing_key_is_found_before_anything_trains(cli, tmp_path, monkeypatch, place):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    file = written(tmp_path, *NEEDY[place])
    assert cli("plan", file)[0] == 0
    status, _, err = cli("run", file, "--output", tmp_path / "run")
    assert status == 2 and f"{place}: openai: OPENAI_API_KEY is not set" in err
    assert not (tmp_path / "run" / "stages").exists()


def test_a_judge_of_a_finished_model_is_met_when_its_turn_comes(cli, tmp_path, monkeypatch):
    """What it said may be kept, and then nobody needs a key."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert cli("run", written(tmp_path, []), "--output", tmp_path / "run")[0] == 0
    file = written(tmp_path, [], [JUDGED])
    status, _, err = cli("run", file, "--output", tmp_path / "run")
    assert status == 1 and "OPENAI_API_KEY is not set" in err
    assert "evaluate.0" not in err


def test_a_plan_says_how_often_judges_will_be_asked(cli, tmp_path):
    asked = {"judge": "openai", "with": {"model": "m", "price_in": 1.0, "price_out": 1.0}}
    label = {"name": "l", "stage": "label", "data": "a", **asked, "by": "score"}
    stages = [online({**asked, "max_cost": 2}), {**ANSWERS, "samples": 3}, label]
    status, out, _ = cli("plan", written(tmp_path, stages))
    words = " ".join(out.split())
    assert status == 0
    both = "it: 2 questions for a prompt with 2 answers, 128 for a buffer of 64 to judge openai"
    assert f"{both}; max_cost 2" in words
    assert "l: 3 questions for a prompt with 3 answers to judge openai; no max_cost" in words
    _, out, _ = cli("plan", written(tmp_path, [online({"judge": "facts.oracle", "by": "wins"})]))
    assert "questions" not in out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("openai", "asked in words: a benchmark that leaves the judge open says what"),
        ("facts.oracle", "scores single answers, and compares two by their scores"),
    ],
)
def test_show_says_what_a_judge_can_do(cli, name, words):
    assert words in cli("show", name)[1]


def test_doctor_says_which_key_is_missing(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (found,) = doctor._judges(load_plugins())
    assert (
        found.row[:2] == ("judge openai", "absent") and "OPENAI_API_KEY is not set" in found.found
    )
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    (found,) = doctor._judges(load_plugins())
    assert found.row == ("judge openai", "ok", "has what it needs here")
