"""Answers to a few prompts over time: there for people, and nothing else changes."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from alignzoo_dpo import DPO
from alignzoo_grpo import GRPO
from engine_jobs import assert_equal_runs, examples, job, rollout
from layout_jobs import on_ranks, run_case

from alignzoo import RolloutEngine
from alignzoo.contract.errors import Interrupted
from alignzoo.engine.train.examples import FILE
from alignzoo.engine.train.loop import train

CASES = {"offline": (DPO, {}), "on-policy": (GRPO, {"rollout": True})}


def run(folder, case, **changes):
    method, how = CASES[case]
    return train(job(folder, method(), **({"rollout": rollout()} if how else {}), **changes))


def shown(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


@pytest.mark.parametrize("case", CASES)
def test_logged_samples_change_no_metric_and_no_weight(tmp_path, case):
    plain = run(tmp_path / "plain", case)
    seen = run(tmp_path / "seen", case, examples=examples())
    assert_equal_runs(tmp_path / "plain", tmp_path / "seen", plain, seen)
    assert not (tmp_path / "plain" / FILE).exists()
    rows = shown(tmp_path / "seen")
    assert [(r["step"], r["prompt"]) for r in rows] == [(s, p) for s in (0, 3, 6) for p in range(3)]


def test_the_random_state_of_training_is_left_alone(tmp_path):
    torch.manual_seed(5)
    run(tmp_path / "plain", "on-policy")
    after = torch.get_rng_state()
    torch.manual_seed(5)
    run(tmp_path / "seen", "on-policy", examples=examples())
    assert torch.equal(after, torch.get_rng_state())


def test_answers_at_one_prompt_differ_by_what_was_learnt_alone(tmp_path):
    run(tmp_path / "a", "offline", examples=examples())
    by_step = {s: [r["ids"] for r in shown(tmp_path / "a") if r["step"] == s] for s in (0, 3, 6)}
    assert by_step[0] != by_step[6]
    still = job(tmp_path / "b", DPO(), examples=examples())
    train(replace(still, optim=replace(still.optim, lr=1e-30, weight_decay=0.0)))
    same = {s: [r["ids"] for r in shown(tmp_path / "b") if r["step"] == s] for s in (0, 3, 6)}
    assert same[0] == same[3] == same[6] == by_step[0]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_stage_has_the_samples_of_one_that_was_never_stopped(tmp_path, case, stop):
    whole = run(tmp_path / "whole", case, examples=examples())

    def interrupt(step, total, metrics, timing):
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Interrupted)):
        run(tmp_path / "cut", case, examples=examples(), on_step=interrupt)
    with (tmp_path / "cut" / FILE).open("a") as file:
        file.write('{"step": 3, "prompt"')  # torn by the kill
    resumed = run(tmp_path / "cut", case, examples=examples())
    assert (tmp_path / "cut" / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


@dataclass(frozen=True)
class Broken(RolloutEngine):
    """Fails at once."""

    name = "broken"

    def start(self, model):
        raise RuntimeError("out of memory")


def test_a_failure_of_sampling_is_said_and_costs_the_samples_alone(tmp_path):
    plain, said = run(tmp_path / "plain", "offline"), []
    broken = examples(engine=Broken())
    other = run(tmp_path / "broken", "offline", examples=broken, say=said.append)
    assert_equal_runs(tmp_path / "plain", tmp_path / "broken", plain, other)
    told = [text for text in said if text.startswith("no samples were logged at step")]
    assert len(told) == 3
    assert "out of memory" in told[0]


@pytest.mark.parametrize(
    ("at", "total", "steps"), [(5, 8, [0, 2, 4, 6, 8]), (2, 3, [0, 3]), (5, 1, [0, 1])]
)
def test_moments_are_even_and_hold_the_first_and_the_last_step(at, total, steps):
    assert [s for s in range(total + 1) if examples(at=at).due(s, total)] == steps


@pytest.mark.slow
def test_two_processes_log_what_one_does_whatever_the_layout(tmp_path):
    cases = [("sft", "ddp"), ("sft", "fsdp2"), ("grpo", "fsdp2")]
    plan = [
        {"folder": f"{tmp_path}/{case}-{how}-{x}", "case": case, "strategy": how, "shown": x}
        for case, how in cases
        for x in (False, True)
    ]
    done = on_ranks(2, plan)
    assert done.returncode == 0, done.stderr
    for case, how in cases:
        plain, seen = (tmp_path / f"{case}-{how}-{x}" for x in (False, True))
        assert (plain / "metrics.jsonl").read_bytes() == (seen / "metrics.jsonl").read_bytes()
        run_case(tmp_path / case / how, case, shown=True)
        alone, rows = shown(tmp_path / case / how), shown(seen)
        places = [(r["step"], r["prompt"]) for r in rows]
        assert places == [(s, p) for s in (0, 2, 4) for p in range(3)]
        assert rows[:3] == alone[:3]  # before the first step there is no rounding to differ by
