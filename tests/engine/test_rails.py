"""Safety rails: what a method promises at its start, and what must not drift, for all methods."""

from __future__ import annotations

import json

import pytest
from alignzoo_dpo import DPO, IPO
from alignzoo_ppo import PPO
from engine_jobs import job, rollout
from safetensors.torch import load_file

from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.rails import Rails, Watch, same_start
from alignzoo.testing import tiny_model

EQUAL = {"policy": "x", "reference": "x", "critic": "x"}


def equal_models(role):
    return tiny_model(5, "scalar" if role == "critic" else "lm")


@pytest.mark.parametrize("method", [DPO(), DPO(label_smoothing=0.1), IPO()])
def test_a_preference_method_starts_where_its_formula_says(tmp_path, method):
    said = []
    rails = Rails(stop=True, say=said.append)
    train(job(tmp_path / "run", method, steps=1, load=equal_models, digests=EQUAL, rails=rails))
    assert said == []


def test_a_reference_that_is_not_what_it_seems_stops_the_first_step(tmp_path):
    lying = {"policy": "x", "reference": "x"}  # but the models differ
    with pytest.raises(TrainingError, match=r"must be 0\.693147 while policy and reference"):
        train(job(tmp_path / "run", digests=lying, rails=Rails(stop=True)))


def test_ppo_starts_with_nothing_clipped_and_no_kl_and_logs_the_full_kl(tmp_path):
    rails = Rails(stop=True)
    changes = {"rollout": rollout(), "load": equal_models, "digests": EQUAL, "rails": rails}
    train(job(tmp_path / "run", PPO(), **changes))
    rows = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    kls = [row["kl_full/reference"] for row in rows]
    assert kls[0] == pytest.approx(0, abs=1e-5)
    assert kls[-1] > 1e-4 and min(kls) > -1e-6


def test_a_model_that_drifts_too_far_is_reported_or_stopped(tmp_path):
    said = []
    fast = Optim(steps=8, batch_size=4, lr=0.3, save_every=50)
    changes = {"optim": fast, "load": equal_models, "digests": EQUAL}
    train(job(tmp_path / "a", rails=Rails(max_kl=1e-3, say=said.append), **changes))
    assert any("kl_full/reference reached" in text for text in said)
    with pytest.raises(TrainingError, match="drifted this far"):
        train(job(tmp_path / "b", rails=Rails(stop=True, max_kl=1e-3), **changes))


def test_rollouts_that_never_end_are_reported(tmp_path):
    said = []
    rails = Rails(max_truncated=0.0, say=said.append)
    train(job(tmp_path / "run", PPO(), rollout=rollout(), rails=rails))
    assert sum("hit max_new_tokens" in text for text in said) == 1  # once, not every step


def test_an_unhealthy_metric_is_said_once_and_only_when_it_lasts():
    said = []
    watch = Watch(DPO(), same_start=False, rails=Rails(say=said.append))
    watch.see(1, {"rewards/accuracy": 0.1})
    assert said == []
    for step in range(2, 40):
        watch.see(step, {"rewards/accuracy": 0.3})
    assert len(said) == 1 and "rewards/accuracy is 0.28" in said[0]


def test_identities_are_checked_only_when_the_start_is_the_same():
    assert same_start(DPO(), EQUAL)
    assert not same_start(DPO(), {"policy": "x", "reference": "y"})


def test_a_step_that_explodes_leaves_its_batch_behind(tmp_path):
    explode = Optim(steps=30, batch_size=4, lr=1e12, warmup=0.0)
    with pytest.raises(TrainingError, match=r"step \d+: .* became nan.*offending_batch"):
        train(job(tmp_path / "run", optim=explode))
    saved = load_file(tmp_path / "run" / "offending_batch.safetensors")
    assert saved["ids"].shape == saved["attention"].shape


def test_a_resumed_run_knows_what_the_first_part_has_seen():
    rows = [{"step": n, "rewards/accuracy": 0.1} for n in range(1, 11)]
    said = []
    whole = Watch(DPO(), False, Rails(say=said.append))
    for row in rows:
        whole.see(row["step"], row)
    later = Watch(DPO(), False, Rails(stop=True))
    later.recall(rows)
    assert len(said) == 1
    assert (later.recent, later.said) == (whole.recent, whole.said)
    assert later.rails.stop
