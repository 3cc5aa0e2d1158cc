"""Where the time of a stage goes, as `timing.jsonl` tells it."""

import json
import os
import signal
import time
from dataclasses import dataclass

import pytest
from alignzoo_dpo import DPO
from alignzoo_ppo import PPO
from engine_jobs import job, rollout

from alignzoo import PairBatch
from alignzoo.engine.layout.replicated import Replicated
from alignzoo.engine.sampling.generate import TransformersSession
from alignzoo.engine.train import checkpoint, loop, phases
from alignzoo.engine.train.job import Validation
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.phases import PHASES, REST, Clock, told
from alignzoo.engine.train.sources import OfflineSource
from alignzoo.engine.train.step import Stepper
from alignzoo.testing import toy_items

PAUSE = 10.0  # seconds on the clock that stands still
HAIR = 1e-6


def about(x):
    return pytest.approx(x, abs=0.1)


@dataclass
class Still:
    """A clock that moves when it is told to, and by a hair when it is looked at."""

    wall: float = 0.0
    cpu: float = 0.0

    def perf_counter(self):
        self.wall += HAIR
        return self.wall

    def process_time(self):
        return self.cpu

    def wait(self, seconds=PAUSE):
        self.wall += seconds

    def work(self, seconds):
        self.wall += seconds
        self.cpu += seconds


@pytest.fixture
def still(monkeypatch):
    clock = Still()
    monkeypatch.setattr(phases, "time", clock)
    return clock


def rows(folder):
    return [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]


def of_steps(folder):
    return [row for row in rows(folder) if "step" in row]


def spent_in(folder, phase):
    return sum(row["phases"].get(phase, 0.0) for row in rows(folder) if "shares" not in row)


def test_of_nested_phases_the_innermost_counts_and_all_add_up(still):
    clock = Clock()
    still.wait(1)
    with clock.during("data"):
        still.wait(2)
        with clock.during("sampling"):
            still.wait(4)
        still.wait(8)
    row = clock.lap()
    assert row["phases"] == about({"rest": 1, "data": 10, "sampling": 4})
    assert row["seconds"] == about(15)
    assert clock.lap()["seconds"] == about(0)


def test_waiting_takes_no_cpu_seconds_and_work_does(still):
    clock = Clock()
    with clock.during("data"):
        still.wait(1)
    with clock.during("forward"):
        still.work(2)
    row = clock.lap()
    assert row["cpu_phases"] == {"rest": 0, "data": 0, "forward": 2}
    assert (row["seconds"], row["cpu_seconds"]) == about((3, 2))


def test_a_phase_ends_where_an_error_leaves_it(still):
    clock = Clock()
    with pytest.raises(OSError, match="gone"), clock.during("checkpoint"):
        raise OSError("gone")
    still.wait()
    assert clock.lap()["phases"] == about({"rest": PAUSE, "checkpoint": 0})


@pytest.mark.parametrize("changes", [{}, {"rollout": rollout()}], ids=["offline", "on-policy"])
def test_the_phases_of_a_step_are_its_time_and_the_rows_are_that_of_the_stage(tmp_path, changes):
    began = time.perf_counter()
    train(job(tmp_path, PPO() if changes else DPO(), **changes))
    whole = time.perf_counter() - began
    steps = of_steps(tmp_path)
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    for row in steps:
        assert sum(row["phases"].values()) == pytest.approx(row["seconds"])
        assert {"forward", "backward", "optimiser"} <= row["phases"].keys() <= {*PHASES, REST}
    *every, stage = rows(tmp_path)
    assert sum(row["seconds"] for row in every) == pytest.approx(stage["seconds"])
    assert whole * 0.5 <= stage["seconds"] <= whole
    assert sum(stage["shares"].values()) == pytest.approx(1)
    assert (stage["shares"]["sampling"] > 0.01) == bool(changes)


SLOW = {
    "forward": (Stepper, "_forward"),
    "backward": (Replicated, "backward"),
    "optimiser": (Replicated, "step"),
    "data": (OfflineSource, "buffer"),
    "checkpoint": (checkpoint, "save_checkpoint"),
    "snapshots": (loop, "stored_snapshots"),
    "validation": (loop, "evaluate_loss"),
}


def slowed(monkeypatch, still, owner, name):
    """The function takes PAUSE at every call; the list has an entry for each."""
    real, calls = getattr(owner, name), []

    def slow(*args, **named):
        calls.append(name)
        still.wait()
        return real(*args, **named)

    monkeypatch.setattr(owner, name, slow)
    return calls


@pytest.mark.parametrize("phase", SLOW)
def test_what_is_slow_is_told_under_its_own_name(tmp_path, monkeypatch, still, phase):
    held_out = Validation(toy_items(PairBatch, 3), every=3, metric="loss", sign=-1)
    calls = slowed(monkeypatch, still, *SLOW[phase])
    train(job(tmp_path, validation=held_out))
    of_validation = 2 if phase == "forward" else 0
    assert len(calls) > of_validation
    assert spent_in(tmp_path, phase) == about((len(calls) - of_validation) * PAUSE)
    others = {p: x for row in rows(tmp_path)[:-1] for p, x in row["phases"].items() if x > 1}
    assert others.keys() == ({phase, "validation"} if of_validation else {phase})


def test_sampling_and_rewards_are_told_apart_from_the_data_that_is_made_of_them(
    tmp_path, monkeypatch, still
):
    def reward(numbers, done):
        still.wait(1)
        return [float(len(c.ids)) for c in done]

    calls = slowed(monkeypatch, still, TransformersSession, "generate")
    train(job(tmp_path, PPO(), rollout=rollout(reward=reward)))
    assert calls
    assert spent_in(tmp_path, "sampling") == about(len(calls) * PAUSE)
    assert spent_in(tmp_path, "reward") == about(len(calls))
    assert spent_in(tmp_path, "data") == about(0)


def test_the_shares_are_said_at_the_end_and_kept(tmp_path):
    said = []
    train(job(tmp_path, say=said.append))
    stage = rows(tmp_path)[-1]
    assert stage["work"] == "stage"
    assert said[-1] == told(stage)
    largest = max(stage["shares"], key=stage["shares"].get)
    share = stage["shares"][largest]
    assert said[-1].startswith(f"{stage['seconds']:.1f} s: {largest} {share:.0%}")


def test_a_resumed_stage_counts_what_its_first_attempt_took(tmp_path):
    def interrupt(step, total, metrics, timing):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(job(tmp_path, on_step=interrupt))
    before = rows(tmp_path)
    with (tmp_path / "timing.jsonl").open("a") as torn:
        torn.write('{"step": 4, "secon')
    train(job(tmp_path))
    *every, stage = rows(tmp_path)
    assert every[: len(before)] == before
    assert [row["step"] for row in every if "step" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["work"] for row in every if "work" in row] == ["start", "start", "end"]
    assert stage["seconds"] == pytest.approx(sum(row["seconds"] for row in every))


def test_a_summary_is_not_counted_again(tmp_path):
    train(job(tmp_path, steps=2))
    train(job(tmp_path, steps=2))
    *every, stage = rows(tmp_path)
    assert [row["work"] for row in every if "shares" in row] == ["stage"]
    assert stage["seconds"] == pytest.approx(sum(r["seconds"] for r in every if "shares" not in r))


def test_rows_of_an_older_version_are_counted_whole(tmp_path):
    train(job(tmp_path, steps=2))
    log = tmp_path / "timing.jsonl"
    old = [{"step": 1, "seconds": 100.0, "tokens_per_second": 1.0}]
    log.write_text("".join(json.dumps(row) + "\n" for row in old))
    train(job(tmp_path, steps=4))
    stage = rows(tmp_path)[-1]
    assert stage["seconds"] > 100
    assert stage["shares"]["rest"] > 0.9
