"""`run --sweep`: a run for every value, shared stages made once, and one leaderboard."""

import json
from pathlib import Path

import pytest

from alignzoo.cli.doing import sweeping
from alignzoo.cli.doing.running import Asked, leaderboard_command, run_seeds_command
from alignzoo.cli.doing.sweeping import points_of, sweep_command, sweep_recipes
from alignzoo.contract.errors import RecipeError, UsageError

RECIPE = """
name: tiny
model: facts
threads: 1
stages:
  - name: sft
    algorithm: sft
    data: {name: facts.sft, with: {size: 64}, max_length: 128}
    train: {batch_size: 32, micro_batch_size: 32, steps: 2, lr: 1e-3}
  - name: more
    algorithm: sft
    policy: sft
    data: {name: facts.sft, with: {size: 64}, max_length: 128}
    train: {batch_size: 32, micro_batch_size: 32, steps: 2, lr: 1e-3}
evaluate:
  - {benchmark: facts, with: {size: 4}, baseline: sft, sampling: {max_new_tokens: 8}}
"""


def asked(folder, *sweep, **changes):
    file = folder / "tiny.yaml"
    file.write_text(RECIPE)
    known = {"overrides": (), "output": folder / "out", "fresh": False, "seeds": 1}
    return Asked(str(file), sweep=sweep, **(known | changes))


def names(*sweeps):
    return [point.name for point in points_of(sweeps)]


def test_folders_are_named_by_the_values_as_they_were_written():
    assert names("stages.dpo.with.beta=0.05, 0.1,5e-1") == ["beta=0.05", "beta=0.1", "beta=5e-1"]


def test_several_sweeps_are_a_grid_and_the_last_one_changes_fastest():
    found = points_of(["stages.dpo.train.lr=1,2", "stages.dpo.with.beta=3,4"])
    assert [point.name for point in found] == ["lr=1,beta=3", "lr=1,beta=4", "lr=2,beta=3",
                                               "lr=2,beta=4"]  # fmt: skip
    assert found[1].overrides == ("stages.dpo.train.lr=1", "stages.dpo.with.beta=4")


def test_keys_of_one_name_are_told_apart_in_the_folders():
    sweeps = ("stages.a.with.beta=1", "stages.b.with.beta=2")
    assert names(*sweeps) == ["a.with.beta=1,b.with.beta=2"]


def test_a_list_is_one_value():
    assert [p.overrides for p in points_of(["stages.a.train.betas=[0.9, 0.95],[0.8, 0.9]"])] == [
        ("stages.a.train.betas=[0.9, 0.95]",),
        ("stages.a.train.betas=[0.8, 0.9]",),
    ]


def test_values_that_no_folder_can_be_named_by_still_have_folders_of_their_own():
    one, two = names("stages.sft.data.name=a/b.jsonl,a:b.jsonl")
    assert one != two and "/" not in one + two


@pytest.mark.parametrize(
    ("sweeps", "words"),
    [
        (["seed"], "write it as key.path=VALUE,VALUE"),
        (["seed=1,"], "write it as key.path=VALUE,VALUE"),
        (["seed=1,1"], "1 is there twice"),
        (["seed=1", "seed=2"], "seed: given twice"),
    ],
)
def test_a_sweep_that_says_nothing_or_the_same_twice_is_refused(sweeps, words):
    with pytest.raises(UsageError, match=words):
        points_of(sweeps)


@pytest.mark.parametrize("changes", [{"fresh": True}, {"seeds": 2}])
def test_what_a_sweep_does_not_go_with_is_refused(tmp_path, changes):
    with pytest.raises(UsageError, match="--sweep goes with neither"):
        sweep_command(asked(tmp_path, "seed=1,2", **changes))


@pytest.mark.parametrize("key", ["stages.more.train.lr", "stages.more.train"])
def test_what_is_set_and_swept_is_refused_because_the_sweep_would_win(tmp_path, key):
    value = "1e-3,1e-2" if key.endswith("lr") else "{steps: 1},{steps: 2}"
    one = asked(tmp_path, f"{key}={value}", overrides=("stages.more.train.lr=5e-3",))
    with pytest.raises(UsageError, match=rf"--set stages\.more\.train\.lr: --sweep {key} sets it"):
        sweep_recipes(one)
    assert sweep_recipes(asked(tmp_path, "seed=1,2", overrides=("stages.more.train.lr=5e-3",)))


def test_values_that_make_one_recipe_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(UsageError, match=r"lr=1e-3 and lr=0\.001 are one recipe; leave one out"):
        sweep_command(asked(tmp_path, "stages.more.train.lr=1e-3,1e-2,0.001"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "sweep", "seeds"),
    [(sweep_command, ["seed=1,2"], 1), (run_seeds_command, [], 2)],
)
def test_the_tables_of_several_runs_never_overwrite_those_of_one(tmp_path, command, sweep, seeds):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    with pytest.raises(UsageError, match=r"the folder of a single run.*name another with --output"):
        command(asked(tmp_path, *sweep, seeds=seeds))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["run.json"]


def test_a_wrong_value_is_known_before_anything_runs(tmp_path):
    with pytest.raises(RecipeError, match=r"--set stages\.more\.train\.lr=-1"):
        sweep_command(asked(tmp_path, "stages.more.train.lr=1e-3,-1"))
    assert not (tmp_path / "out").exists()


def test_without_an_output_equal_sweeps_share_a_folder_and_others_do_not(tmp_path):
    def folder(*sweep):
        one = asked(tmp_path, *sweep, output=None)
        return sweeping.sweep_folder(one, sweep_recipes(one))

    assert folder("seed=1,2") == folder("seed=1,2") != folder("seed=1,3")
    assert folder("seed=1,2").parent == Path("runs")


def test_an_interrupted_combination_ends_the_sweep_with_its_status(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(sweeping, "run_command", lambda one: done.append(one.output.name) or 130)
    assert sweep_command(asked(tmp_path, "seed=1,2")) == 130
    assert done == ["seed=1"]


def statuses(folder):
    return {n: piece["status"] for n, piece in json.loads(folder.read_text())["pieces"].items()}


def test_a_shared_stage_is_trained_once_and_one_leaderboard_holds_all(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    sweep = asked(tmp_path, "stages.more.train.lr=1e-3,1e-1")
    assert sweep_command(sweep) == 0
    first, second = (tmp_path / "out" / f"lr={x}" / "run.json" for x in ("1e-3", "1e-1"))
    assert statuses(first)["sft"] == "done" and statuses(second)["sft"] == "reused"
    assert statuses(first)["more"] == statuses(second)["more"] == "done"
    table = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "lr=1e-3" in table and "lr=1e-1" in table
    assert "sweep 2 of 2: lr=1e-1" in capsys.readouterr().out
    assert sweep_command(sweep) == 0
    assert {*statuses(first).values(), *statuses(second).values()} == {"reused"}
    capsys.readouterr()
    leaderboard_command([tmp_path / "out"], as_json=False)  # its folder stands for its runs
    said = capsys.readouterr().out
    assert "lr=1e-3" in said and "lr=1e-1" in said
