"""Several processes share the work of every stage, and come to the bytes of one."""

import json
import shutil

import pytest
from kill_recipes import leftovers, results, write_recipe
from two_ranks import FAILS_IN_SAMPLING, KILLED_AFTER, launched

pytestmark = pytest.mark.slow  # real groups of processes

RECIPE = """
name: shared
model: facts
threads: 1
stages:
  - name: first
    algorithm: sft
    data: {name: facts.sft, with: {size: 32}}
    train: {batch_size: 16, micro_batch_size: 16, lr: 1e-3}
  - name: answers
    stage: generate
    policy: first
    data: {name: facts.prompts, with: {size: 15}}
    samples: 3
    batch_size: 8
    sampling: {max_new_tokens: 6}
  - {name: pairs, stage: label, data: answers, judge: facts.annotator, choose: bradley_terry}
  - name: dpo
    algorithm: dpo
    policy: first
    data: pairs
    train: {steps: 1, batch_size: 8, micro_batch_size: 2, lr: 1e-3}
evaluate:
  - benchmark: facts
    with: {size: 20}
    models: [first]
    kl_to: [initial]
    samples: 5
    batch_size: 10
    sampling: {max_new_tokens: 6}
  - benchmark: pairwise
    with: {prompts_file: PROMPTS}
    models: [first]
    baseline: initial
    judge: {name: function, with: {path: "JUDGE:longest"}}
    batch_size: 2
    sampling: {max_new_tokens: 4}
"""
TALKS = [["who is the fox ?"], ["who is the owl ?", "and why ?"], ["what eats a berry ?"]]


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def shares(folder):
    """{work: parts that each rank worked out} of a piece of work."""
    found = {}
    for row in rows(folder / "timing.jsonl"):
        assert row["rank"] == len(found.setdefault(row["work"], []))
        assert row["seconds"] > 0 or row["parts"] == 0
        found[row["work"]].append(row["parts"])
    return found


def snapshots(cache):
    return {file.name: file.read_bytes() for file in (cache / "snapshots").iterdir()}


def test_two_processes_share_every_stage_and_write_the_bytes_of_one(tmp_path, cli, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "one-cache"))
    talks = tmp_path / "talks.jsonl"
    talks.write_text("".join(json.dumps({"turns": turns}) + "\n" for turns in TALKS))
    judge = tmp_path / "judge.py"
    judge.write_text("def longest(prompt, answer):\n    return len(answer)\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("PROMPTS", str(talks)).replace("JUDGE", str(judge)))
    one, two = tmp_path / "one", tmp_path / "two"
    status, _, err = cli("run", recipe, "--output", one)
    assert status == 0, err
    # DDP adds gradients in another order; so that models are equal, the second run takes the first.
    shutil.copytree(one / "stages" / "01-first", two / "stages" / "01-first")
    shutil.copy(one / "run.json", two / "run.json")
    cache = tmp_path / "two-cache"
    done = launched(2, "run", recipe, "--output", two, ALIGNZOO_CACHE=str(cache))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("first: reused") == 1 == done.stdout.count("results:")

    def stage(name):
        return {n: x for n, x in results(two).items() if name in n}

    trained = stage("04-dpo")
    assert results(one).items() - trained.items() >= results(two).items() - trained.items()
    assert results(one).keys() == results(two).keys()
    assert snapshots(tmp_path / "one-cache") == snapshots(cache) != {}
    assert shares(two / "stages" / "02-answers") == {"answers": [3, 3]}
    assert shares(one / "stages" / "02-answers") == {"answers": [6]}
    facts = two / "evaluations" / "01-facts" / "first"
    assert shares(facts) == {"answers": [5, 5], "kl-initial": [2, 2]}
    turns = shares(two / "answers" / "02-pairwise" / "first")
    assert turns == {"turn-1-by-2": [1, 1], "turn-2-by-2": [1, 0]}
    times = rows(two / "stages" / "04-dpo" / "timing.jsonl")  # the first process's alone
    assert [row.get("step", row.get("work")) for row in times] == ["start", 1, "end", "stage"]
    assert leftovers(two) == []


def test_killed_work_goes_on_with_another_number_of_processes(tmp_path, cli, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    recipe = write_recipe("generate", tmp_path)
    recipe.write_text(recipe.read_text().replace("batch_size: 8", "batch_size: 3"))
    run = tmp_path / "run"
    killed = launched(
        2, "run", recipe, "--output", run, befalls=KILLED_AFTER.format(n=5), folder=tmp_path
    )
    assert killed.returncode != 0
    kept = (run / "stages" / "01-answers" / "state" / "answers.jsonl").read_text()
    assert len(kept.split("\n\n")) == 5  # of 6 that were sampled
    status, out, err = cli("run", recipe, "--output", run)
    assert status == 0 and "goes on with what it has kept" in out, err
    assert shares(run / "stages" / "01-answers") == {"answers": [3]}
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "another"))
    assert cli("run", recipe, "--output", tmp_path / "calm")[0] == 0
    assert results(run) == results(tmp_path / "calm")


def test_what_one_process_raises_ends_all_with_its_sentence(tmp_path):
    recipe = write_recipe("generate", tmp_path)
    recipe.write_text(recipe.read_text().replace("batch_size: 8", "batch_size: 3"))
    run = tmp_path / "run"
    done = launched(
        2, "run", recipe, "--output", run, befalls=FAILS_IN_SAMPLING, folder=tmp_path,
        ALIGNZOO_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("error: prompt 7: the owl does not know\n") == 1
    said = done.stderr.partition("Traceback")[0]  # then torchrun tells that its processes failed
    assert "owl" in said and "Connection" not in said
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["error"] == "RankError: prompt 7: the owl does not know (process 1)"


def test_several_processes_never_print_the_same_answers_twice(tmp_path):
    done = launched(2, "generate", "facts", "who is the fox ?")
    assert done.returncode != 0 and done.stdout == ""
    assert "share the work out with a `generate` stage" in done.stderr
