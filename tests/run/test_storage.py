"""Nothing is lost or falsified by other runs, signals, full disks or changed files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from kill_points import command, warm
from kill_recipes import results, write_recipe

from alignzoo.contract.errors import DataError
from alignzoo.store import records
from alignzoo.store.parts import read_parts

pytestmark = pytest.mark.slow  # whole runs, in processes of their own


@pytest.fixture(scope="module", autouse=True)
def _warm():
    warm()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(recipe, folder, *more):
    return command(["run", str(recipe), "--output", str(folder), *more], [folder])[0]


def started(recipe, folder, *more):
    words = [sys.executable, "-m", "alignzoo", "run", str(recipe), "--output", str(folder), *more]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def waited_for(condition, process, seconds=90):
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1]


LONG = """
name: long
model: facts
threads: 1
stages:
  - name: answers
    stage: generate
    data: {name: facts.prompts, with: {size: 4000}}
    batch_size: 16
    sampling: {max_new_tokens: 24}
"""


@pytest.fixture
def long(tmp_path):
    (tmp_path / "long.yaml").write_text(LONG)
    return tmp_path / "long.yaml"


def kept(folder):
    return len(read_parts(folder / "stages" / "01-answers" / "state" / "answers.jsonl"))


def test_fresh_touches_nothing_while_another_process_works_there(tmp_path, cache, long):
    folder = tmp_path / "run"
    working = started(long, folder)
    try:
        waited_for(lambda: kept(folder) > 2, working)
        refused = started(long, folder, "--fresh")
        _, err = refused.communicate(timeout=900)
        assert refused.returncode == 1
        assert f"process {working.pid} is running here" in err
        assert kept(folder) > 2
    finally:
        working.kill()
        working.communicate()


def test_fresh_forgets_everything_the_run_had_and_gives_the_same(tmp_path, cache):
    recipe = write_recipe("evaluate", tmp_path)
    assert run(recipe, tmp_path / "run") == 0
    before = results(tmp_path / "run")
    for name in ("answers", "stages"):
        (tmp_path / "run" / name / "old").mkdir(parents=True)
    assert run(recipe, tmp_path / "run", "--fresh") == 0
    assert not list((tmp_path / "run").rglob("old"))
    assert results(tmp_path / "run") == before


def test_sigkill_in_a_long_generate_stage_loses_one_batch_at_most(tmp_path, cache, long):
    folder = tmp_path / "run"
    working = started(long, folder)
    waited_for(lambda: kept(folder) > 5, working)
    working.kill()
    working.communicate()
    state = folder / "stages" / "01-answers" / "state" / "answers.jsonl"
    batches = read_parts(state)
    assert sorted(batches) == list(range(len(batches)))
    assert all(len(rows) == 16 for rows in batches.values())
    lines = [line for line in state.read_bytes().splitlines() if line]
    assert len(lines) - len(batches) <= 1  # the one under way


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_training_leaves_a_truthful_record_and_the_words_to_resume(
    tmp_path, cache, long, number
):
    folder = tmp_path / "run"
    working = started(long, folder)
    waited_for(lambda: kept(folder) > 2, working)
    working.send_signal(number)
    _, err = working.communicate(timeout=900)
    assert working.returncode == 128 + number
    assert "interrupted; `alignzoo run" in err
    assert "Traceback" not in err
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert kept(folder) > 2


def test_two_quick_signals_end_a_command_at_once_and_it_can_go_on(tmp_path, cache, long):
    folder = tmp_path / "run"
    working = started(long, folder)
    waited_for(lambda: kept(folder) > 2, working)
    working.send_signal(signal.SIGTERM)
    working.send_signal(signal.SIGINT)
    _, err = working.communicate(timeout=900)
    assert working.returncode in (130, 143)
    assert "interrupted" in err or "stopped at once" in err
    assert kept(folder) > 2


def test_a_run_that_is_deleted_while_another_takes_its_stages_was_no_source(
    tmp_path, cache, monkeypatch
):
    recipe = write_recipe("train offline", tmp_path)
    assert run(recipe, tmp_path / "first") == 0
    whole = results(tmp_path / "first")
    plain = records._link

    def vanishing(source, target):
        shutil.rmtree(tmp_path / "first", ignore_errors=True)
        plain(source, target)

    monkeypatch.setattr(records, "_link", vanishing)
    assert run(recipe, tmp_path / "second") == 0
    assert results(tmp_path / "second") == whole
    assert not (tmp_path / "first").exists()


def test_six_runs_on_one_cache_all_come_out_alike(tmp_path, cache):
    recipe = write_recipe("generate", tmp_path)
    folders = [tmp_path / f"run-{n}" for n in range(6)]
    ends = {}

    def work(folder):
        ends[folder] = started(recipe, folder).communicate()[1]

    threads = [threading.Thread(target=work, args=[folder]) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [text for text in ends.values() if "rror" in text]
    assert len({tuple(sorted(results(folder).items())) for folder in folders}) == 1


def test_the_same_folder_twice_with_fresh_loses_nothing(tmp_path, cache):
    recipe = write_recipe("generate", tmp_path)
    both = [started(recipe, tmp_path / "run", "--fresh") for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 0], [0, 1])
    errors = [line for text in said for line in text.splitlines() if line.startswith("error")]
    assert len(errors) == codes.count(1)
    assert not [text for text in said if "Traceback" in text]
    assert run(recipe, tmp_path / "run") == 0


def test_a_cache_that_cannot_be_written_stops_nobody(tmp_path, monkeypatch):
    recipe = write_recipe("train offline", tmp_path)
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "good"))
    assert run(recipe, tmp_path / "first") == 0
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "file"))
    assert run(recipe, tmp_path / "second") == 0
    assert results(tmp_path / "second") == results(tmp_path / "first")


@pytest.mark.parametrize("words", [["export"], ["generate"], ["eval"]], ids=lambda words: words[0])
def test_no_command_uses_a_finished_model_whose_bytes_have_changed(tmp_path, cache, cli, words):
    recipe = write_recipe("train offline", tmp_path)
    assert run(recipe, tmp_path / "run") == 0
    file = tmp_path / "run" / "stages" / "01-dpo" / "model" / "model.safetensors"
    text = bytearray(file.read_bytes())
    text[-5] ^= 1
    file.write_bytes(text)
    more = {
        "export": [tmp_path / "out"],
        "generate": ["What is 1 ?"],
        "eval": ["--benchmark", "facts"],
    }
    for name in ("run", "run/dpo", "run/stages/01-dpo/model"):
        if name.endswith("model") and words[0] == "export":
            continue  # names no stage
        status, _, err = cli(*words, tmp_path / name, *more[words[0]])
        assert status == 1, name
        assert str(file) in err
        assert "changed or damaged" in err


def test_what_could_not_be_written_is_refused_before_anything_is_sampled(tmp_path, cache, cli):
    from datetime import datetime

    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"prompt": ["What is 1 ?"], "meta": [{"seen": datetime(2026, 1, 1)}]})
    pyarrow.parquet.write_table(table, tmp_path / "dated.parquet")
    recipe = tmp_path / "dated.yaml"
    recipe.write_text(LONG.replace("name: facts.prompts, with: {size: 4000}",
                                   f"name: {tmp_path}/dated.parquet"))  # fmt: skip
    status, _, err = cli("run", recipe, "--output", tmp_path / "run")
    assert status == 1
    assert "datetime" in err
    assert "sample 1" in err
    assert not list((tmp_path / "run").rglob("answers.jsonl"))


def test_weights_that_the_config_has_no_place_for_are_refused(tmp_path):
    from alignzoo_facts.model import build_model, build_tokenizer

    from alignzoo import ModelRef, Role
    from alignzoo.contract.errors import AlignzooError
    from alignzoo.engine.models.load import load_model
    from alignzoo.recipe.registry import load_plugins

    build_model(ModelRef("facts"), Role()).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for layers in (config["num_hidden_layers"] - 1, 0, -1):
        changed = config | {"num_hidden_layers": layers}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(AlignzooError, match=r"no place for, such as|layer") as error:
            load_model(load_plugins().hooks, ModelRef(str(tmp_path)), Role())
        assert "unexpected" not in str(error.value)


def test_a_folder_without_a_record_states_nothing(tmp_path):
    (tmp_path / "model").mkdir()
    records.check_output(tmp_path, "model")
    (tmp_path / "stage.json").write_text(
        json.dumps({"status": "done", "outputs": {"model": "0"}, "files": {"model/x": "0"}})
    )
    with pytest.raises(DataError, match=os.path.join("model", "x")):
        records.check_output(tmp_path, "model")
