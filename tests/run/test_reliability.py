"""Killed, interrupted, doubled, edited, repeated: a run comes out as if nothing had happened."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow  # real processes that are killed while they work

RECIPE = """
name: small
model: facts
threads: 1
stages:
  - name: sft
    algorithm: sft
    data: {name: facts.sft, with: {size: 480}}
    train: {steps: 24, save_every: 5, batch_size: 16, micro_batch_size: 8, lr: 3e-3}
  - name: answers
    stage: generate
    policy: sft
    data: {name: facts.prompts, with: {size: 120}}
    samples: 2
    batch_size: 8
    sampling: {max_new_tokens: 16}
  - {name: pairs, stage: label, data: answers, judge: facts.annotator, choose: bradley_terry}
  - name: dpo
    algorithm: dpo
    policy: sft
    data: {name: pairs, skip: 20}
    validation: {data: {name: pairs, limit: 20}, every: 2}
    train: {steps: 6, save_every: 2, batch_size: 16, micro_batch_size: 8, lr: 3e-4}
evaluate:
  - {benchmark: facts, with: {size: 8}, baseline: sft, sampling: {max_new_tokens: 16}}
"""


def start(folder, cache, *more, recipe=None):
    words = ["run", str(recipe or folder.parent / "small.yaml"), "--output", str(folder), *more]
    return subprocess.Popen(
        [sys.executable, "-m", "alignzoo.cli", *words],
        env=os.environ | {"ALIGNZOO_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return out


def complete(folder, cache, *more, recipe=None):
    return finish(start(folder, cache, *more, recipe=recipe))


def stop_when(process, reached, how=signal.SIGKILL):
    """Send a signal as soon as the folder looks a certain way; whether it came in time."""
    deadline = time.monotonic() + 90
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    early = process.poll() is None
    process.send_signal(how)
    return early


def steps(folder, stage):
    file = folder / "stages" / stage / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def results(folder):
    """Bytes of everything that must not depend on how the run went."""
    names = ("metrics.jsonl", "data.jsonl", "answers.jsonl", "scores.json")
    files = [f for f in folder.rglob("*") if f.name in names or f.suffix == ".safetensors"]
    kept = [folder / "scores.jsonl", folder / "leaderboard.md", *files]
    return {str(f.relative_to(folder)): f.read_bytes() for f in kept if "state" not in f.parts}


def leftovers(folder):
    """What only a run that goes on may hold."""
    return [f.name for f in folder.rglob("*") if f.suffix == ".tmp" or f.name == "state"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reliable")
    (folder / "small.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def undisturbed(place):
    """What a run gives that nobody disturbs, in a cache of its own."""
    complete(place / "calm", place / "calm-cache")
    found = results(place / "calm")
    assert sum(name.endswith(".safetensors") for name in found) == 2
    return found


def test_the_same_recipe_and_seed_give_the_same_bytes_elsewhere(place, undisturbed):
    complete(place / "twin", place / "twin-cache")
    assert results(place / "twin") == undisturbed


def test_a_run_killed_again_and_again_ends_as_if_undisturbed(place, undisturbed):
    folder, cache = place / "killed", place / "killed-cache"

    def begun(stage):
        return (folder / "stages" / stage / "stage.json").is_file()

    moments = {
        "while it trains": lambda: steps(folder, "01-sft") >= 12,
        "while it generates": lambda: begun("02-answers"),
        "between two stages": (folder / "stages/03-pairs/data.jsonl").is_file,
        "while it trains with held-out pairs": lambda: steps(folder, "04-dpo") >= 3,
    }
    in_time = {}
    for moment, reached in moments.items():
        running = start(folder, cache)
        in_time[moment] = stop_when(running, reached)
        running.communicate()
    assert all(in_time.values()), in_time
    out = complete(folder, cache)
    assert "[1/6] sft: reused" in out
    assert results(folder) == undisturbed
    assert json.loads((folder / "run.json").read_text())["status"] == "done"
    assert not leftovers(folder)


def test_ctrl_c_says_how_to_resume_and_until_then_the_folder_is_taken(place, undisturbed):
    folder, cache = place / "stopped", place / "stopped-cache"
    first = start(folder, cache)
    try:
        assert stop_when(first, lambda: steps(folder, "01-sft") >= 7, signal.SIGSTOP)
        second = start(folder, cache)
        _, refusal = second.communicate(timeout=900)
        first.send_signal(signal.SIGINT)
        first.send_signal(signal.SIGCONT)
        _, err = first.communicate(timeout=900)
    finally:
        first.kill()
    assert second.returncode == 1
    assert f"process {first.pid} is running here; wait for it" in refusal
    assert len(refusal.splitlines()) == 1
    assert first.returncode == 130
    hint = re.search(r"interrupted; `alignzoo (.*)` again resumes in stage 'sft' at step \d+", err)
    assert hint and hint[1].split() == first.args[3:]
    assert "Traceback" not in err
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert "sft: goes on from its last checkpoint" in complete(folder, cache)
    assert results(folder) == undisturbed


def test_a_second_run_reuses_everything_in_less_than_ten_seconds(place, undisturbed):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = complete(place / "calm", place / "calm-cache")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time: a test must not fail because the machine is busy with something else.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
    assert out.count(": reused") == 6
    assert results(place / "calm") == undisturbed


def test_another_recipe_takes_over_the_stages_it_shares(place, undisturbed):
    other = place / "other.yaml"
    other.write_text(RECIPE.replace("name: small", "name: other").replace("steps: 6", "steps: 2"))
    out = complete(place / "relative", place / "calm-cache", recipe=other)
    reused = re.findall(r"^\[./6\] (.*): reused", out, re.MULTILINE)
    assert reused == ["sft", "answers", "pairs", "facts: sft"]
    weights = "stages/01-sft/model/model.safetensors"
    assert (place / "relative" / weights).read_bytes() == undisturbed[weights]


def test_outputs_edited_by_hand_are_made_again_and_stale_drafts_swept(place, undisturbed):
    folder = place / "edited"
    shutil.copytree(place / "calm", folder)
    for name in ("01-sft/metrics.jsonl", "04-dpo/model/model.safetensors"):
        edited = folder / "stages" / name
        edited.write_bytes(edited.read_bytes()[:-1] + b"\x01")
    (folder / ".run.json.1.tmp").write_text("{")  # left by a process killed while it wrote
    assert results(folder) != undisturbed
    out = complete(folder, place / "edited-cache")
    for stage in ("sft", "dpo"):
        assert f"{stage}: its files changed since it was finished; done again" in out
    assert "[2/6] answers: reused" in out
    assert results(folder) == undisturbed
    assert not leftovers(folder)
