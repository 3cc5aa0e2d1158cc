"""Killed, interrupted, doubled, edited, repeated: a run comes out as if nothing had happened."""

import json
import os
import re
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
    out, err = process.communicate(timeout=120)
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
    other = complete(place / "other", place / "other-cache", "--set", "seed=1")
    assert "reused" not in other
    assert not results(place / "other").items() & undisturbed.items()  # the comparison can fail


def test_a_run_killed_again_and_again_ends_as_if_undisturbed(place, undisturbed):
    folder, cache = place / "killed", place / "killed-cache"

    def begun(stage):
        return (folder / "stages" / stage / "stage.json").is_file()

    moments = {
        "while it trains": lambda: steps(folder, "01-sft") >= 12,
        "while it generates": lambda: begun("02-answers"),
        "between two stages": lambda: (folder / "stages/03-pairs/data.jsonl").is_file(),
        "while it trains with held-out pairs": lambda: steps(folder, "04-dpo") >= 3,
        "while it measures": lambda: (folder / "evaluations").is_dir(),
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
    assert not [f.name for f in folder.rglob("*") if f.suffix == ".tmp" or f.name == "state"]


def test_ctrl_c_says_how_to_resume_and_the_resumed_run_is_the_same(place, undisturbed):
    folder, cache = place / "stopped", place / "stopped-cache"
    running = start(folder, cache)
    assert stop_when(running, lambda: steps(folder, "01-sft") >= 7, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in err
    hint = re.search(r"interrupted; `alignzoo (.*)` again resumes in stage 'sft' at step \d+", err)
    assert hint and hint[1].split() == running.args[3:]
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert "sft: goes on from its last checkpoint" in complete(folder, cache)
    assert results(folder) == undisturbed


def test_a_second_process_in_the_same_folder_is_refused(place, undisturbed):
    folder, cache = place / "shared", place / "shared-cache"
    first = start(folder, cache)
    try:
        while not steps(folder, "01-sft") and first.poll() is None:
            time.sleep(0.01)
        second = start(folder, cache)
        out, err = second.communicate(timeout=60)
        assert second.returncode == 1, out
        assert f"process {first.pid} is running here; wait for it" in err
        assert len(err.splitlines()) == 1
        finish(first)
    finally:
        first.kill()
    assert results(folder) == undisturbed


def test_a_second_run_reuses_everything_in_less_than_ten_seconds(place, undisturbed):
    started = time.monotonic()
    out = complete(place / "calm", place / "calm-cache")
    assert time.monotonic() - started < 10
    assert out.count(": reused") == 6
    assert results(place / "calm") == undisturbed


def test_another_recipe_takes_over_the_stages_it_shares(place, undisturbed):
    other = place / "other.yaml"
    other.write_text(RECIPE.replace("name: small", "name: other").replace("steps: 6", "steps: 2"))
    out = complete(place / "relative", place / "calm-cache", recipe=other)
    assert [f"{name}: reused" in out for name in ("sft", "answers", "pairs", "] dpo")] == [
        True,
        True,
        True,
        False,
    ]
    weights = "stages/01-sft/model/model.safetensors"
    assert (place / "relative" / weights).read_bytes() == undisturbed[weights]


@pytest.mark.parametrize("name", ["metrics.jsonl", "model/model.safetensors"])
def test_an_output_edited_by_hand_is_noticed_and_made_again(place, undisturbed, name):
    folder = place / f"edited-{name.partition('/')[0]}"
    complete(folder, place / f"{folder.name}-cache")
    edited = folder / "stages/01-sft" / name
    edited.write_bytes(edited.read_bytes()[:-1] + b"\x01")
    out = complete(folder, place / f"{folder.name}-cache")
    assert "sft: its files changed since it was finished; done again" in out
    assert "[2/6] answers: reused" in out
    assert results(folder) == undisturbed
