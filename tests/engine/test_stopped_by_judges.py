"""Whoever stops while answers are judged keeps the training so far."""

from dataclasses import replace

import pytest
from alignzoo_dpo import DPO
from engine_jobs import assert_equal_runs, job, rollout

from alignzoo import JudgeError
from alignzoo.contract.errors import Interrupted
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.sources import Earned

OPTIM = Optim(steps=4, batch_size=4, micro_batch_size=4, lr=1e-2)  # saved by the clock: at the end


def lengths(numbers, done):
    return [float(len(c.ids)) for c in done]


def failing(at, error):
    """A reward whose call number `at` raises."""
    calls = []

    def reward(numbers, done):
        calls.append(1)
        if len(calls) == at:
            raise error
        return lengths(numbers, done)

    return reward


@pytest.mark.parametrize("error", [JudgeError("the limit"), Interrupted(15)], ids=["limit", "term"])
def test_steps_before_a_stop_are_saved_and_the_run_goes_on_bit_for_bit(tmp_path, error):
    sampled = rollout(epochs=1, reward=lengths)
    whole = train(job(tmp_path / "whole", DPO(), rollout=sampled, optim=OPTIM))
    stopped = replace(sampled, reward=failing(3, error))
    with pytest.raises(type(error)):
        train(job(tmp_path / "cut", DPO(), rollout=stopped, optim=OPTIM))
    assert [path.name for path in (tmp_path / "cut" / "state").glob("step-*")] == ["step-00000002"]
    resumed = train(job(tmp_path / "cut", DPO(), rollout=sampled, optim=OPTIM))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


def test_what_is_earned_is_logged_and_what_the_reward_holds_is_given_back(tmp_path):
    closed = []

    def reward(numbers, done):
        values = lengths(numbers, done)
        return Earned(values, {"reward/own": [2 * x for x in values]}, {"rollout/total": 7.0})

    sampled = rollout(epochs=1, reward=reward, close=lambda: closed.append(1))
    rows = []
    run = job(tmp_path, DPO(), rollout=sampled, optim=replace(OPTIM, steps=1))
    train(replace(run, on_step=lambda step, total, metrics, timing: rows.append(metrics)))
    (row,) = rows
    assert row["reward/own"] == pytest.approx(2 * row["rollout/reward"])
    assert row["rollout/total"] == 7.0 and closed == [1]
