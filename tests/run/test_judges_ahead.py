"""A judge without its key is found before anything trains, and `plan` does not mind."""

import pytest
import yaml

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
