"""What names on the command line stand for."""

import json

from alignzoo.cli.terminal.names import trained_stages


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
