"""Runs: what is done again, what is reused, what is left behind by a stop."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_parts import CALLS, ENDS, FAILURES, Heard, recipe, registry

import alignzoo
from alignzoo.contract.errors import AlignzooError, DataError, PluginError, UsageError
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.run import run_recipe
from alignzoo.store.folders import default_folder
from alignzoo.store.identity import stage_identity
from alignzoo.store.inputs import model_ref
from alignzoo.store.runs import locked


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    for memory in (CALLS, ENDS, FAILURES):
        memory.clear()


def run(what, folder, reg=None):
    heard = Heard()
    run_recipe(what, "name: r  # as written\n", reg or registry(), folder, heard)
    return heard.pieces


def test_how_attention_is_computed_belongs_to_what_a_stage_is_and_reaches_every_model():
    usual, eager = recipe(), recipe(attn_implementation="eager")
    digests = {stage_identity(r.stages[0], r, registry(), {}).digest for r in (usual, eager)}
    assert len(digests) == 2
    outputs = {"one": Path("r/01-one")}
    assert model_ref("one", eager, outputs).attn_implementation == "eager"
    assert model_ref("initial", eager, outputs).attn_implementation == "eager"
    assert model_ref("a/b@main", eager, {}).attn_implementation == "eager"
    assert model_ref("one", usual, outputs).attn_implementation is None


def test_a_stage_reads_what_an_earlier_one_wrote(tmp_path):
    run(recipe({"text": "a"}, {"text": "b"}), tmp_path / "r")
    rows = (tmp_path / "r/stages/02-two/data.jsonl").read_text().splitlines()
    assert [json.loads(row)["prompt"] for row in rows] == ["a 0", "b 0"]


def test_the_second_run_does_nothing_again(tmp_path):
    assert run(recipe(), tmp_path / "r") == ["run one", "run two"]
    assert run(recipe(), tmp_path / "r") == ["reuse one", "reuse two"]
    assert len(CALLS) == 2


def test_another_recipe_takes_over_finished_stages_under_other_names(tmp_path):
    run(recipe(), tmp_path / "a")
    other = recipe(second={"text": "new"}).model_dump(by_alias=True, exclude_none=True)
    other["stages"][0]["name"] = "uno"
    other["stages"][1]["data"]["name"] = "uno"
    assert run(Recipe.model_validate(other), tmp_path / "b") == ["reuse uno", "run two"]
    assert (tmp_path / "b/stages/01-uno/data.jsonl").exists()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"seed": 1}, ["run one", "run two"]),
        ({"precision": "bf16"}, ["run one", "run two"]),
        ({"first": {"text": "x"}}, ["run one", "run two"]),
        ({"second": {"text": "x"}}, ["reuse one", "run two"]),
        ({"description": "only words"}, ["reuse one", "reuse two"]),
    ],
)
def test_a_changed_input_does_its_stage_and_the_following_again(tmp_path, changed, expected):
    run(recipe(), tmp_path / "r")
    assert run(recipe(**changed), tmp_path / "r") == expected


def test_a_new_version_of_the_plugin_or_of_the_core_does_everything_again(tmp_path, monkeypatch):
    run(recipe(), tmp_path / "r")
    # Equal bytes come out of stage one, but its code also made stage two.
    assert run(recipe(), tmp_path / "r", registry("2")) == ["run one", "run two"]
    monkeypatch.setattr(alignzoo, "__version__", "999")
    assert run(recipe(), tmp_path / "r", registry("2")) == ["run one", "run two"]


def test_changed_bytes_of_a_data_file_count_and_its_name_does_not(tmp_path):
    file, copy = tmp_path / "in.jsonl", tmp_path / "copy.jsonl"
    file.write_text('{"prompt": "p"}\n')
    copy.write_text('{"prompt": "p"}\n')

    def reading(path):
        stage = {"name": "one", "stage": "write", "data": {"name": str(path)}}
        return Recipe.model_validate({"name": "r", "model": "m", "stages": [stage]})

    run(reading(file), tmp_path / "r")
    assert run(reading(copy), tmp_path / "r") == ["reuse one"]
    file.write_text('{"prompt": "other"}\n')
    assert run(reading(file), tmp_path / "r") == ["run one"]


def test_a_model_folder_counts_by_its_bytes(tmp_path):
    weights = tmp_path / "model" / "weights"
    weights.parent.mkdir()
    stage = {"name": "one", "stage": "write", "models": {"judge": str(weights.parent)}}
    what = Recipe.model_validate({"name": "r", "model": "m", "stages": [stage]})
    weights.write_text("1")
    before = stage_identity(what.stages[0], what, registry(), {}).digest
    weights.write_text("22")
    assert stage_identity(what.stages[0], what, registry(), {}).digest != before


def test_damaged_output_is_noticed_and_made_again(tmp_path):
    run(recipe(), tmp_path / "r")
    data = tmp_path / "r/stages/01-one/data.jsonl"
    data.write_text('{"prompt": "forged"}\n')
    heard = Heard()
    run_recipe(recipe(), "", registry(), tmp_path / "r", heard)
    assert heard.pieces == ["run one", "reuse two"]
    assert any("files changed" in event for event in heard.events)
    assert "forged" not in data.read_text()


def test_damaged_output_of_another_run_is_not_taken_over(tmp_path):
    run(recipe(), tmp_path / "a")
    (tmp_path / "a/stages/01-one/data.jsonl").write_text('{"prompt": "forged"}\n')
    assert run(recipe(), tmp_path / "b")[0] == "run one"


def test_a_run_that_stopped_half_way_goes_on_where_it_was(tmp_path):
    run(recipe(), tmp_path / "warm-up")  # proves nothing is taken from it below
    FAILURES.append(DataError("disk full"))
    what = recipe({"text": "a"}, {"text": "b"})
    with pytest.raises(DataError):
        run(what, tmp_path / "r")
    record = json.loads((tmp_path / "r/run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", "DataError: disk full")
    assert run(what, tmp_path / "r") == ["run one", "run two"]
    assert not (tmp_path / "r/stages/01-one/half.txt").exists()
    assert json.loads((tmp_path / "r/run.json").read_text())["status"] == "done"


def test_an_interrupt_between_stages_keeps_the_finished_one(tmp_path):
    what = recipe({"text": "a"}, {"text": "b"})

    class Stopped(Heard):
        def stage_started(self, name, index, total):
            super().stage_started(name, index, total)
            if name == "two":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(what, "", registry(), tmp_path / "r", Stopped())
    record = json.loads((tmp_path / "r/run.json").read_text())
    assert record["status"] == "interrupted"
    assert run(what, tmp_path / "r") == ["reuse one", "run two"]


def test_observers_hear_how_a_run_ended(tmp_path):
    run(recipe(), tmp_path / "r")
    FAILURES.append(DataError("no"))
    with pytest.raises(DataError):
        run(recipe({"text": "x"}), tmp_path / "r")
    assert ENDS[0] is None and isinstance(ENDS[1], DataError)


def test_two_processes_cannot_run_in_one_folder(tmp_path):
    holder = "import sys, time; from pathlib import Path; from alignzoo.store.runs import locked\n"
    holder += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "r")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(AlignzooError, match=f"process {process.pid} is running here"):
            run(recipe(), tmp_path / "r")
    finally:
        process.kill()
        process.wait()
    assert run(recipe(), tmp_path / "r") == ["run one", "run two"]  # a dead process holds nothing


def test_a_lock_is_free_again_after_the_run(tmp_path):
    run(recipe(), tmp_path / "r")
    with locked(tmp_path / "r"):
        pass


def test_a_folder_of_something_else_is_refused_untouched(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("mine")
    with pytest.raises(UsageError, match="choose another"):
        run(recipe(), tmp_path / "thesis")
    assert os.listdir(tmp_path / "thesis") == ["chapter.txt"]


def test_a_stage_that_leaves_nothing_is_an_error(tmp_path):
    with pytest.raises(PluginError, match=r"neither model/ nor data\.jsonl"):
        run(recipe({"silent": True}), tmp_path / "r")


def test_the_manifest_says_why_a_stage_was_done_again(tmp_path):
    run(recipe(), tmp_path / "a")
    run(recipe(seed=7), tmp_path / "b")
    a, b = (
        json.loads((tmp_path / f"{name}/stages/01-one/stage.json").read_text())["manifest"]
        for name in "ab"
    )
    assert {key for key in a if a[key] != b[key]} == {"seed"}


def test_the_folder_keeps_the_recipe_as_written_and_resolved(tmp_path):
    from alignzoo.recipe.file import load_recipe

    run(recipe(), tmp_path / "r")
    assert (tmp_path / "r/source.yaml").read_text() == "name: r  # as written\n"
    assert load_recipe(tmp_path / "r/recipe.yaml", registry()) == recipe()


def test_different_recipes_have_different_default_folders():
    every = (recipe(), recipe(seed=1), recipe())
    folders = {default_folder(one, registry()) for one in every}
    assert len(folders) == 2
    assert all(folder.parent == Path("runs") for folder in folders)


# --- with a model ----------------------------------------------------------------------------


def modelled(samples=2):
    """The untrained base model of the embedded world: sample, label, measure."""
    sampling = {"max_new_tokens": 8}
    return Recipe.model_validate(
        {
            "name": "m",
            "model": "facts",
            "stages": [
                {
                    "name": "answers",
                    "stage": "generate",
                    "data": {"name": "facts.prompts", "with": {"size": 6}},
                    "samples": 2,
                    "sampling": sampling,
                },
                {
                    "name": "pairs",
                    "stage": "label",
                    "data": {"name": "answers"},
                    "judge": "facts.annotator",
                    "choose": "bradley_terry",
                },
            ],
            "evaluate": [
                {
                    "benchmark": "facts",
                    "with": {"size": 5},
                    "models": ["initial"],
                    "baseline": "initial",
                    "kl_to": ["initial"],
                    "samples": samples,
                    "sampling": sampling,
                }
            ],
        }
    )


def test_sampling_labelling_and_measuring_are_reproducible_and_reused(tmp_path, monkeypatch):
    registry = load_plugins()
    heard = Heard()
    result = run_recipe(modelled(), "", registry, tmp_path / "a", heard)
    (section,) = result.sections
    (row,) = section.rows
    assert row.cells["win_rate"].mean == 0.5
    assert row.cells["kl(initial)"].mean == 0.0
    assert row.cells["true_reward"].low <= row.cells["true_reward"].mean
    kept = tmp_path / "a/samples/01-facts/initial.jsonl"
    first = json.loads(kept.read_text().splitlines()[0])
    assert len(first["responses"]) == len(first["scores"]) == len(first["features"]) == 2
    assert (
        "| initial (baseline) | 0.500 [0.500, 0.500] |"
        in (tmp_path / "a/leaderboard.md").read_text()
    )

    again = Heard()
    assert run_recipe(modelled(), "", registry, tmp_path / "a", again).sections == result.sections
    assert again.pieces == ["reuse answers", "reuse pairs", "reuse facts: initial"]

    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "empty"))
    run_recipe(modelled(), "", registry, tmp_path / "b", Heard())
    for name in ("01-answers", "02-pairs"):
        a, b = (tmp_path / run / "stages" / name / "data.jsonl" for run in "ab")
        assert a.read_bytes() == b.read_bytes()


def test_more_samples_measure_again_without_touching_the_stages(tmp_path):
    registry = load_plugins()
    run_recipe(modelled(), "", registry, tmp_path / "a", Heard())
    heard = Heard()
    run_recipe(modelled(samples=3), "", registry, tmp_path / "a", heard)
    assert heard.pieces == ["reuse answers", "reuse pairs", "run facts: initial"]
