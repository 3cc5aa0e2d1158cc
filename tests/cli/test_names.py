"""What names on the command line stand for."""

import json

import pytest

from alignzoo.cli.terminal.names import trained_stages
from alignzoo.cli.terminal.stopping import before_work
from alignzoo.contract.errors import Interrupted, counted, suggest


def finished(run, folder):
    (run / "stages" / folder / "model").mkdir(parents=True)
    (run / "stages" / folder / "stage.json").write_text(json.dumps({"status": "done"}))


def test_stages_of_another_recipe_that_ran_in_the_folder_before_are_not_the_runs(tmp_path):
    for folder in ("01-sft", "02-ppo", "04-dpo"):
        finished(tmp_path, folder)
    (tmp_path / "recipe.yaml").write_text("stages: [{name: sft}, {name: ppo}]\n")
    assert [stage.name for stage in trained_stages(tmp_path)] == ["sft", "ppo"]


def test_a_run_whose_recipe_is_gone_still_shows_its_stages(tmp_path):
    finished(tmp_path, "01-sft")
    assert [stage.name for stage in trained_stages(tmp_path)] == ["sft"]


@pytest.mark.parametrize(
    ("word", "known", "near"),
    [
        ("dop", ["sft", "dpo", "kto"], "dpo"),
        ("betta", ["beta", "epsilon"], "beta"),
        ("temperature", ["template_cuts"], ""),
        ("sampling", ["example"], ""),
        ("drop", ["dpo"], ""),
    ],
)
def test_a_slip_is_guessed_and_an_unrelated_word_is_not(word, known, near):
    assert suggest(word, known) == (f"; did you mean '{near}'?" if near else "")


def test_one_thing_is_counted_in_the_singular():
    assert [counted(n, "more row") for n in (0, 1, 2)] == [
        "0 more rows",
        "1 more row",
        "2 more rows",
    ]


@pytest.mark.parametrize(
    "words", [("run", "dpo", "--fresh"), ("eval", "facts", "--benchmark", "facts")]
)
def test_a_command_that_is_stopped_while_it_gets_ready_says_how_to_begin(cli, monkeypatch, words):
    def stopped(*_):
        raise Interrupted(2)

    monkeypatch.setattr("alignzoo.cli.doing.running.load_plugins", stopped)
    monkeypatch.setattr("alignzoo.cli.evaluating.measuring.load_plugins", stopped)
    status, _, err = cli(*words)
    kept = " ".join(word for word in words if word != "--fresh")
    assert status == 130
    assert f"stopped before any work; `alignzoo {kept}` again begins it" in err


@pytest.mark.parametrize("variable", [("RANK", "1"), ("ALIGNZOO_LAUNCHED", "1")])
def test_of_several_processes_one_alone_says_how_to_begin(monkeypatch, capsys, variable):
    monkeypatch.setenv(*variable)
    with pytest.raises(Interrupted), before_work():
        raise Interrupted(2)
    assert capsys.readouterr().err == ""
    monkeypatch.delenv(variable[0])
    with pytest.raises(Interrupted), before_work():
        raise Interrupted(2)
    assert capsys.readouterr().err.startswith("\nstopped before any work; ")
