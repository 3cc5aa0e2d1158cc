"""A recipe that trains and then lets a judge compare the models, as a user would write it."""

import json
import re

import yaml
from alignzoo_facts.data import HeldOutPrompts


def test_a_recipe_trains_and_a_judge_compares_its_models(tmp_path, cli, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": s.prompt, "meta": dict(s.meta)} for s in HeldOutPrompts(5).samples(0)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft = {
        "name": "sft",
        "algorithm": "sft",
        "data": {"name": "facts.sft", "with": {"size": 128}},
        "train": {"lr": 3e-3, "batch_size": 32, "micro_batch_size": 32},
    }
    compared = {
        "benchmark": "pairwise",
        "with": {"prompts_file": str(prompts)},
        "baseline": "initial",
        "sampling": {"max_new_tokens": 8},
        "judge": "facts.oracle",
    }
    recipe = {"name": "r", "model": "facts", "threads": 1, "stages": [sft], "evaluate": [compared]}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))

    status, planned, _ = cli("plan", file)
    assert status == 0 and "pairwise: sft" in planned
    status, _, error = cli("run", file, "--output", tmp_path / "run")
    assert status == 0, error
    table = (tmp_path / "run" / "leaderboard.md").read_text()
    assert "judged by facts.oracle" in table and re.search(r"\| [1-9]\d*/\d+/0 \|", table)

    status, _, _ = cli("leaderboard", tmp_path / "run", "--html", tmp_path / "board.html")
    assert status == 0
    assert "initial" in (tmp_path / "board.html").read_text()
    status, again, _ = cli("run", tmp_path / "run" / "recipe.yaml", "--output", tmp_path / "run")
    assert status == 0 and again.count("reused") == 3


def test_a_judge_that_the_recipe_forgets_or_misspells_is_an_error_with_its_line(tmp_path, cli):
    file = tmp_path / "recipe.yaml"
    text = "name: r\nmodel: facts\nstages: []\nevaluate:\n  - benchmark: pairwise\n    {}\n"
    file.write_text(text.format("models: [initial]"))
    status, _, error = cli("plan", file)
    assert status == 2 and f"{file}:5" in error and "needs `judge:`" in error
    file.write_text(text.format("judge: {name: openai, with: {modle: x}}\n    models: [initial]"))
    status, _, error = cli("plan", file)
    assert status == 2 and f"{file}:6" in error and "did you mean 'model'" in error


def test_a_judge_that_is_asked_in_words_labels_and_questions_of_another_kind_are_refused(
    tmp_path, cli
):
    file = tmp_path / "recipe.yaml"
    text = (
        "name: r\nmodel: facts\nstages:\n"
        "  - {name: a, stage: generate, data: facts.prompts, samples: 2}\n"
        "  - {name: b, stage: label, data: a, judge: local, with: {model: m}MORE}\n"
    )
    file.write_text(text.replace("MORE", ""))
    assert cli("plan", file)[0] == 0
    file.write_text(text.replace("MORE", ", by: wins, questions: mt_bench"))
    status, _, error = cli("plan", file)
    assert status == 2 and f"{file}:5" in error
    assert "mt_bench grades single answers, which is `by: score`, not `by: wins`" in error


def test_what_an_evaluation_lacks_is_said_before_anything_is_trained(tmp_path, cli, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_DATA", str(tmp_path / "data"))
    text = (
        "name: r\nmodel: facts\nstages:\n"
        "  - {name: sft, algorithm: sft, data: {name: facts.sft, with: {size: 32}}}\n"
        "evaluate:\n  - {benchmark: BENCHMARK, judge: {name: openai, with: {model: m}}}\n"
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(text.replace("BENCHMARK", "pairwise"))
    status, _, error = cli("plan", file)
    assert status == 2 and f"{file}:6" in error and "name the other: `baseline:`" in error
    file.write_text(text.replace("BENCHMARK", "mt_bench"))
    status, _, error = cli("run", file, "--output", tmp_path / "run")
    assert status == 1 and "mt_bench: the references" in error and "not found" in error
    assert not (tmp_path / "run" / "stages").exists()


def test_commands_that_fetch_files_can_be_copied_from_show(cli):
    _, out, _ = cli("show", "mt_bench")
    lines = [line for line in out.splitlines() if line.startswith("curl -LO https://")]
    assert len(lines) == 4 and all(" " not in line.split("-LO ")[1] for line in lines)
