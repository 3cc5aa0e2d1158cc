"""The command line as a user meets it: what it prints, where it writes, how it ends."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

RECIPE = """
name: tiny
model: facts
stages:
  - name: sft
    algorithm: sft
    data: {name: facts.sft, with: {size: 64}, max_length: 128}
    train: {batch_size: 32, micro_batch_size: 32, steps: 2, lr: 1e-3}
evaluate:
  - {benchmark: facts, with: {size: 4}, baseline: initial, sampling: {max_new_tokens: 8}}
"""


def process(*words, cwd=None, python=(), **env):
    command = [sys.executable, *python, "-m", "alignzoo.cli", *map(str, words)]
    return subprocess.run(
        command, check=False, cwd=cwd, env=os.environ | env, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def finished(place):
    """A run of the tiny recipe by a process of its own, and what it printed."""
    done = process("run", place / "tiny.yaml", "--output", place / "run")
    assert done.returncode == 0, done.stderr
    return place / "run", done.stdout


# --- help ----------------------------------------------------------------------------------


def test_help_is_instant_and_imports_no_torch():
    best = 1.0
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = min(best, used)
    assert best <= 0.15
    trace = process("--help", python=("-X", "importtime")).stderr
    assert "alignzoo.cli.commands" in trace
    assert not re.search(r"\|\s+(torch|transformers|rich|pydantic)$", trace, re.MULTILINE)


def test_every_command_explains_itself(cli):
    commands = ["run", "plan", "list", "show", "doctor", "eval", "leaderboard", "generate",
                "export", "recipe-schema", "new"]  # fmt: skip
    for command in commands:
        status, out, _ = cli(command, "--help")
        assert status == 0
        assert f"Usage: alignzoo {command}" in out


def test_an_unknown_option_is_a_usage_error(cli):
    status, _, err = cli("run", "x.yaml", "--outptu", "y")
    assert status == 2
    assert "--outptu" in err


# --- run -----------------------------------------------------------------------------------


def test_run_ends_with_the_table_and_the_folder(finished):
    folder, out = finished
    assert "[1/3] sft" in out
    assert "true_reward" in out
    said = [f"results: {folder}", f"report: {folder / 'report.html'}"]
    assert out.splitlines()[-2:] == said
    assert (folder / "stages" / "01-sft" / "model" / "model.safetensors").is_file()


def test_a_second_run_reuses_everything(cli, finished, place):
    status, out, _ = cli("run", place / "tiny.yaml", "--output", finished[0])
    assert status == 0
    assert out.count(": reused") == 3


def test_a_fresh_run_reuses_nothing(cli, finished, place):
    copy = place / "again"
    assert "reused" in cli("run", place / "tiny.yaml", "--output", copy)[1]
    status, out, _ = cli("run", place / "tiny.yaml", "--output", copy, "--fresh")
    assert status == 0
    assert "reused" not in out
    scores = [(folder / "scores.jsonl").read_text() for folder in (finished[0], copy)]
    assert scores[0] == scores[1]


def test_fresh_keeps_away_from_a_folder_that_is_no_run(cli, place):
    mine = place / "mine"
    (mine / "stages").mkdir(parents=True)
    (mine / "stages" / "thesis.txt").write_text("years of work")
    status, _, err = cli("run", place / "tiny.yaml", "--output", mine, "--fresh")
    assert status == 2
    assert "not empty" in err
    assert (mine / "stages" / "thesis.txt").read_text() == "years of work"


def test_a_bad_recipe_prints_its_problems_and_writes_nothing(place):
    bad = place / "bad.yaml"
    bad.write_text(RECIPE.replace("lr: 1e-3", "lrr: 1e-3").replace("size: 4", "sise: 4"))
    done = process("run", bad, "--output", place / "never")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"{bad}:8:61", f"{bad}:10:31"]
    assert "did you mean 'lr'?" in lines[0]
    assert not (place / "never").exists()


def test_an_override_is_checked_like_the_recipe(cli, place):
    status, _, err = cli("plan", place / "tiny.yaml", "--set", "stages.sft.train.lr=fast")
    assert status == 2
    assert "stages.sft.train.lr" in err


def test_a_recipe_that_is_not_there_gets_a_suggestion(cli, tmp_path):
    status, _, err = cli("run", "real/storys_aligndistil")
    assert status == 2
    assert "did you mean 'real/stories_aligndistil'?" in err
    assert cli("run", tmp_path)[0] == 2


def test_ctrl_c_leaves_a_run_that_says_how_to_resume(place, cli):
    folder = place / "stopped"
    words = [
        "run",
        place / "tiny.yaml",
        "--output",
        folder,
        "--set",
        "stages.sft.train.epochs=9000",
    ]
    words += ["--set", "stages.sft.train.steps=9000"]
    running = subprocess.Popen(
        [sys.executable, "-m", "alignzoo.cli", *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    steps = folder / "stages" / "01-sft" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (steps.is_file() and steps.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    said = re.search(r"interrupted; `(.*)` again resumes in stage 'sft' at step (\d+)", err)
    assert said, err
    assert said[1] == " ".join(["alignzoo", *map(str, words)])
    assert 1 <= int(said[2]) <= len(steps.read_text().splitlines())
    assert "Traceback" not in err
    _, out, _ = cli("plan", *words[1:], "--json")
    assert json.loads(out)["stages"][0]["status"] == "resumes"


# --- plan and leaderboard -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plan", "run", "leaderboard", "report"])
def test_what_is_finished_is_looked_at_without_torch(finished, place, command):
    """Half of the time of a run whose stages are all reused would go to importing it."""
    words = [place / "tiny.yaml", "--output"] if command in ("plan", "run") else []
    done = process(command, *words, finished[0], python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    assert command != "plan" or re.search(r"sft\s+train\s+sft\s+reused", done.stdout)
    assert command != "run" or "[1/3] sft: reused" in done.stdout + done.stderr
    heavy = r"\|\s+(torch\._C|transformers|safetensors|scipy|pandas|matplotlib)$"
    assert re.findall(heavy, done.stderr, re.MULTILINE) == []


def test_leaderboard_puts_runs_together(cli, finished):
    status, out, _ = cli("leaderboard", finished[0], "--json")
    assert status == 0
    (section,) = json.loads(out)
    assert {row["model"] for row in section["rows"]} == {"sft", "initial"}
    assert "true_reward" in cli("leaderboard", finished[0])[1]


def test_leaderboard_of_nothing_is_a_usage_error(cli, tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        status, _, err = cli("leaderboard", folder)
        assert status == 2
        assert str(folder) in err


# --- eval, generate, export -----------------------------------------------------------------


def test_eval_measures_a_run_against_a_baseline(cli, finished, tmp_path):
    run = finished[0]
    words = ["eval", run, "facts", "--benchmark", "facts", "--baseline", "facts"]
    words += ["--set", "with.size=3", "--set", "sampling.max_new_tokens=5", "--output", tmp_path]
    status, out, _ = cli(*words)
    assert status == 0
    assert "run/sft" in out
    assert "facts (baseline)" in out
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [row["prompts"] for row in rows] == [3, 3]


def test_eval_checks_its_options_first(cli, finished, tmp_path):
    words = ["eval", finished[0], "--benchmark", "facts", "--output", tmp_path / "out"]
    status, _, err = cli(*words, "--set", "with.sise=3", "--set", "sampling.top_p=7")
    assert status == 2
    assert "--set with.sise: unknown option; did you mean 'size'?" in err
    assert "--set sampling.top_p" in err
    assert not (tmp_path / "out").exists()


def test_generate_answers_a_prompt_the_same_way_twice(cli, finished):
    words = ("generate", f"{finished[0]}/sft", "tell me the food of the fox .", "--seed", "5")
    status, once, _ = cli(*words, "--samples", "2", "--max-new-tokens", "6")
    assert status == 0
    assert once.startswith("--- 1\n")
    assert cli(*words, "--samples", "2", "--max-new-tokens", "6")[1] == once


def test_generate_prints_the_answer_and_no_word_of_a_library():
    done = process("generate", "facts", "what is the fox like ?", "--max-new-tokens", "2")
    assert done.returncode == 0
    assert done.stderr == ""


def test_generate_answers_a_file_as_data_that_a_recipe_can_read(cli, finished, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "what is the fox like ?"}\n{"prompt": "what is it ?"}\n')
    status, out, _ = cli("generate", finished[0], "--prompts", prompts, "--max-new-tokens", "4")
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["prompt"] for row in rows] == ["what is the fox like ?", "what is it ?"]
    assert all(len(row["responses"]) == 1 for row in rows)


def test_a_stage_that_a_run_does_not_have_gets_a_suggestion(cli, finished):
    status, _, err = cli("generate", finished[0] / "stf", "hello")
    assert status == 2
    assert "did you mean 'sft'?" in err


def test_a_model_that_leads_nowhere_is_one_sentence(cli, tmp_path):
    status, _, err = cli("generate", tmp_path / "no" / "model", "hello")
    assert status == 1
    assert len(err.strip().splitlines()) == 1
    assert str(tmp_path / "no" / "model") in err


def test_export_writes_a_plain_model_with_a_card(cli, finished, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "exported"
    assert cli("export", finished[0], folder)[0] == 0
    AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    card = (folder / "README.md").read_text()
    for part in ("# tiny / sft", "`facts.sft`", "true_reward", "batch_size: 32", "* torch "):
        assert part in card
    status, _, err = cli("export", finished[0], folder)
    assert status == 2
    assert "not empty" in err


# --- what is installed ----------------------------------------------------------------------


def test_list_prints_every_kind_for_programs_and_people(cli):
    entries = json.loads(cli("list", "--json")[1])
    named = {(entry["kind"], entry["name"]) for entry in entries}
    assert {("algorithm", "dpo"), ("engine", "transformers"), ("stage", "label")} <= named
    assert {("dataset", "facts.sft"), ("recipe", "dpo")} <= named
    assert all(entry["summary"] for entry in entries if entry["kind"] != "recipe")
    kinds = {entry["kind"] for entry in json.loads(cli("list", "judges", "--json")[1])}
    assert kinds == {"judge"}
    status, _, err = cli("list", "jugdes")
    assert status == 2
    assert "did you mean 'judges'?" in err


def test_show_explains_a_method_from_its_class(cli):
    status, out, _ = cli("show", "dpo")
    assert status == 0
    assert "log sigmoid" in out
    assert re.search(r"beta\s+float,? > 0\s+0\.1", out)
    assert re.search(r"reference\s+frozen\s+lm\s+the policy's start", out)
    assert "rewards/accuracy" in out


@pytest.mark.parametrize("name", ["facts.oracle", "facts", "transformers", "generate", "label"])
def test_show_explains_anything_that_list_prints(cli, name):
    status, out, _ = cli("show", name)
    assert status == 0
    assert len(out.splitlines()) > 2


def test_show_suggests_the_nearest_name(cli):
    status, _, err = cli("show", "dpoo")
    assert status == 2
    assert "did you mean 'dpo'?" in err


def test_recipe_schema_knows_the_options_of_plugins(cli, tmp_path):
    status, _, _ = cli("recipe-schema", "--output", tmp_path / "schema.json")
    assert status == 0
    text = (tmp_path / "schema.json").read_text()
    assert json.loads(text)["$schema"].startswith("https://json-schema.org/")
    assert "label_smoothing" in text


def test_doctor_is_content_with_this_installation(cli):
    status, out, _ = cli("doctor")
    assert status == 0
    assert "all well" in out
    assert re.search(r"alignzoo_dpo\s+ok\s+alignzoo", out)
    assert re.search(r"processes\s+ok\s+--processes ", out)


def test_doctor_imports_what_a_run_would_import_of_extras(tmp_path):
    for name, version in (("deepspeed", "0.1"), ("vllm", "0.32.5")):
        information = tmp_path / f"{name}-{version}.dist-info"
        information.mkdir()
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (information / "METADATA").write_text(about)
        (tmp_path / f"{name}.py").write_text("raise ImportError('no compiler')\n")
    done = process("doctor", PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert done.returncode == 1
    no_compiler = "cannot be imported: .*no compiler"
    assert re.search(rf"\[deepspeed\]\s+BROKEN\s+.*0.1 is outside.*{no_compiler}", done.stdout)
    assert re.search(rf"\[vllm\]\s+BROKEN\s+vllm {no_compiler}", done.stdout)


def test_doctor_says_which_extras_and_engines_are_absent(cli, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_VLLM_PYTHON", "/nowhere/python")
    absent = {"vllm", "deepspeed", "peft", "httpx"}

    def found(name):
        if name in absent:
            raise PackageNotFoundError(name)
        return "99"

    monkeypatch.setattr("alignzoo.cli.looking.doctor.version", found)
    _, out, _ = cli("doctor")
    for extra, name in (("vllm", "vllm"), ("deepspeed", "deepspeed"), ("lora", "peft")):
        assert re.search(rf"\[{extra}\]\s+absent\s+without {name} \(pip install", out)
    assert re.search(r"engine vllm\s+absent\s+.*/nowhere/python", out)
    assert not re.search(r"\[(vllm|deepspeed|lora|eval)\]\s+ok", out)


@pytest.fixture
def broken_plugin(tmp_path):
    """A folder for PYTHONPATH that holds an installed plug-in which cannot be imported."""
    information = tmp_path / "cracked-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: cracked\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[alignzoo]\ncracked_plugin = cracked_plugin\n")
    (tmp_path / "cracked_plugin.py").write_text("import a_library_that_nobody_has\n")
    return tmp_path


def test_doctor_names_a_broken_plugin_and_others_go_on(broken_plugin, place):
    done = process("doctor", PYTHONPATH=str(broken_plugin))
    assert done.returncode == 1
    assert re.search(r"cracked_plugin\s+BROKEN\s+cracked does not load", done.stdout)
    assert "a_library_that_nobody_has" in done.stdout
    assert process("plan", place / "tiny.yaml", PYTHONPATH=str(broken_plugin)).returncode == 0


def test_the_bundled_recipes_are_found_from_anywhere(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = cli("plan", "dpo", "--json")
    assert status == 0
    assert Path(json.loads(out)["folder"]).parts[0] == "runs"
