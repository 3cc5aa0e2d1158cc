"""The engine's promises: same gradient however it is computed, same run however it is cut."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from alignzoo_aligndistil import AlignDistil
from alignzoo_dpo import DPO
from alignzoo_ppo import PPO
from alignzoo_sft import SFT
from engine_jobs import assert_equal_runs, behind_long_prompts, job, rollout, weights

from alignzoo import Algorithm, Loss, Max, Mean, PairBatch, Term, TextBatch
from alignzoo.contract.errors import PluginError, TrainingError
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.scoring.snapshots import cache_name
from alignzoo.engine.train.job import Validation
from alignzoo.engine.train.loop import train
from alignzoo.ops import log_prob, sequence_sum
from alignzoo.testing import tiny_model, tiny_models, toy_items

CASES = [
    (DPO(), {}),
    (DPO(), {"items": behind_long_prompts(toy_items(PairBatch, 11))}),
    (AlignDistil(r=2.0), {}),
    (AlignDistil(r=2.0), {"rollout": rollout(epochs=1)}),
    (PPO(), {"rollout": rollout()}),
]


@pytest.mark.parametrize(("algorithm", "changes"), CASES, ids=["dpo", "shared", "off", "on", "ppo"])
def test_the_same_seed_gives_the_same_run_bit_for_bit(tmp_path, algorithm, changes):
    runs = [train(job(tmp_path / name, algorithm, **changes)) for name in ("a", "b")]
    assert_equal_runs(tmp_path / "a", tmp_path / "b", *runs)


@pytest.mark.parametrize(("algorithm", "changes"), CASES, ids=["dpo", "shared", "off", "on", "ppo"])
@pytest.mark.parametrize("when", [1, 3, 6])  # 6: the last step of all
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, algorithm, changes, when):
    whole = train(job(tmp_path / "whole", algorithm, **changes))

    def interrupt(step, total, metrics, timing):
        if step == when:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(job(tmp_path / "cut", algorithm, on_step=interrupt, **changes))
    assert list((tmp_path / "cut" / "state").glob("step-*"))
    resumed = train(job(tmp_path / "cut", algorithm, **changes))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


@pytest.mark.parametrize(
    "method", [DPO(), SFT(), AlignDistil(r=2.0), AlignDistil(r=2.0, reduction="token_mean")]
)
def test_the_size_of_micro_batches_changes_no_step_of_the_real_loop(tmp_path, method):
    logs = []
    for size in (4, 3, 1):
        optim = Optim(steps=3, batch_size=4, micro_batch_size=size, lr=1e-3)
        train(job(tmp_path / str(size), method, optim=optim))
        rows = (tmp_path / str(size) / "metrics.jsonl").read_text().splitlines()
        logs.append([(json.loads(r)["loss"], json.loads(r)["grad_norm"]) for r in rows])
    for other in logs[1:]:
        assert [pytest.approx(pair, rel=1e-4) for pair in logs[0]] == other


def test_a_crash_resumes_from_the_last_checkpoint_bit_for_bit(tmp_path):
    whole = train(job(tmp_path / "whole", AlignDistil(r=2.0)))

    def crash(step, total, metrics, timing):
        if step == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(job(tmp_path / "cut", AlignDistil(r=2.0), on_step=crash))
    resumed = train(job(tmp_path / "cut", AlignDistil(r=2.0)))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


def test_dpo_and_reverse_dpo_share_one_reference_pass(tmp_path):
    loads = []
    pairs = toy_items(PairBatch, 8)
    swapped = [replace(item, rows=item.rows[::-1]) for item in pairs]

    def run(name, items):
        models = tiny_models(DPO())

        def load(role):
            loads.append(role)
            return models[role]

        train(job(tmp_path / name, load=load, items=items, cache=tmp_path / "cache"))

    run("dpo", pairs)
    run("reverse", swapped)
    assert loads.count("reference") == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_cached_snapshot_is_keyed_by_model_and_sequences():
    items, signal_ = toy_items(PairBatch, 4), log_prob("reference")
    name = cache_name(signal_, {"reference": "a"}, items)
    assert name == cache_name(signal_, {"reference": "a"}, items[::-1])
    assert name != cache_name(signal_, {"reference": "b"}, items)
    assert name != cache_name(signal_, {"reference": "a"}, items[:3])
    assert name != cache_name(signal_, {"reference": "a"}, items, "bfloat16")


def test_a_line_torn_by_a_crash_does_not_keep_a_run_from_resuming(tmp_path):
    whole = train(job(tmp_path / "whole"))

    def crash(step, total, metrics, timing):
        if step == 5:
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        train(job(tmp_path / "cut", on_step=crash))
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, train(job(tmp_path / "cut")))


def test_held_out_items_are_cut_into_even_batches_without_a_single_leftover(tmp_path):
    seen = []
    optim = Optim(steps=1, batch_size=4, lr=1e-30)
    validation = Validation(toy_items(PairBatch, 9, seed=9), every=1, metric="loss", sign=-1)
    loss = lambda s, t, metrics, _: seen.append(metrics["validation/loss"])  # noqa: E731
    train(job(tmp_path / "a", optim=optim, validation=validation, on_step=loss))
    optim = Optim(steps=1, batch_size=9, lr=1e-30)
    train(job(tmp_path / "b", optim=optim, validation=validation, on_step=loss))
    assert seen[0] == pytest.approx(seen[1], abs=1e-6)


@dataclass(frozen=True)
class Broken(Algorithm):
    """Sums log-probabilities, with a flaw. Source: http://example.org."""

    name = "broken"
    batch: ClassVar = TextBatch

    def signals(self):
        return {"policy": log_prob("policy")}


class WeighsByTheModel(Broken):
    def loss(self, batch, signals, state):
        weight = (signals["policy"].detach() < -1).float()
        return Loss(Term(-signals["policy"], weight))


class LogsTheUndeclared(Broken):
    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)
        return Loss(Term(-total), {"surprise": Mean(total)})


class Explodes(Broken):
    def loss(self, batch, signals, state):
        return Loss(Term(sequence_sum(signals["policy"], batch.mask) * math.inf))


@pytest.mark.parametrize(
    ("algorithm", "error", "words"),
    [
        (WeighsByTheModel(), PluginError, "weights must depend on the batch alone"),
        (LogsTheUndeclared(), PluginError, "logs 'surprise' without declaring it"),
        (Explodes(), TrainingError, r"step 1: loss.* became -inf .*no update .*method's formula"),
    ],
    ids=["weights", "metric", "nan"],
)
def test_a_method_that_breaks_a_promise_is_stopped_with_a_sentence(
    tmp_path, algorithm, error, words
):
    with pytest.raises(error, match=words):
        train(job(tmp_path / "run", algorithm))


def test_an_engine_that_samples_from_other_weights_is_stopped(tmp_path):
    @dataclass(frozen=True)
    class Stale(TransformersEngine):
        def start(self, model):
            session = super().start(tiny_model(99))
            session.sync = lambda weights, version: None
            return session

    with pytest.raises(TrainingError, match="does not sample from the trained weights"):
        train(job(tmp_path / "run", PPO(), rollout=rollout(engine=Stale(batch_size=8))))


def test_the_gap_between_engine_and_trainer_is_logged_and_tiny(tmp_path):
    train(job(tmp_path / "run", AlignDistil(r=2.0), rollout=rollout(epochs=1)))
    rows = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    gaps = [row["rollout/logprob_gap"] for row in rows if "rollout/logprob_gap" in row]
    assert gaps and max(gaps) < 1e-4


def test_validation_keeps_the_best_checkpoint_and_not_the_last(tmp_path):
    held_out = toy_items(PairBatch, 5, seed=9)
    seen = []

    def remember(step, total, metrics, timing):
        seen.append(metrics["validation/loss"])

    validation = Validation(held_out, every=1, metric="loss", sign=1)  # keep the worst: step 1..
    models = train(job(tmp_path / "run", validation=validation, on_step=remember))
    best = seen.index(max(seen))
    assert best != len(seen) - 1
    rows = []
    again = train(
        job(
            tmp_path / "again",
            steps=1,
            load=lambda role: models["policy"] if role == "policy" else tiny_models(DPO())[role],
            validation=Validation(held_out, every=1, metric="loss", sign=-1),
            optim=Optim(steps=1, batch_size=4, lr=1e-30),
            on_step=lambda s, t, metrics, _: rows.append(metrics["validation/loss"]),
        )
    )
    assert again and rows[0] == pytest.approx(max(seen), abs=1e-6)


def test_each_role_has_its_own_rate(tmp_path):
    models = tiny_models(PPO())
    before = {n: p.clone() for n, p in models["critic"].named_parameters()}
    start = {n: p.clone() for n, p in models["policy"].named_parameters()}
    optim = Optim(steps=2, batch_size=4, lr=1e-2, lr_by_role={"critic": 1e-30})
    train(
        job(tmp_path / "x", PPO(), optim=optim, rollout=rollout(), load=lambda role: models[role])
    )
    after = dict(models["critic"].named_parameters())
    assert all(torch.allclose(x, after[name], atol=1e-12) for name, x in before.items())
    moved = dict(models["policy"].named_parameters())
    assert any(not torch.allclose(x, moved[name], atol=1e-4) for name, x in start.items())


def test_gradient_checkpointing_changes_nothing(tmp_path):
    plain = train(job(tmp_path / "a", AlignDistil(r=2.0)))
    optim = Optim(steps=6, batch_size=4, micro_batch_size=3, lr=1e-2, gradient_checkpointing=True)
    other = train(job(tmp_path / "b", AlignDistil(r=2.0), optim=optim))
    for name, x in weights(plain).items():
        assert torch.allclose(x, weights(other)[name], atol=1e-6), name


def test_bf16_trains_and_keeps_fp32_master_weights(tmp_path):
    script = TRAIN.format(precision="bf16", folder=str(tmp_path), steps=4)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "torch.float32" in done.stdout


TRAIN = """
import sys
from pathlib import Path
from alignzoo_aligndistil import AlignDistil
from alignzoo.testing import tiny_models, toy_items
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.parallel.agreement import end
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.train.job import Job
from alignzoo.engine.train.loop import train
algorithm = AlignDistil(r=2.0)
models = tiny_models(algorithm)
ranks = start_ranks("{precision}")
folder = Path("{folder}")
out = train(Job(
    algorithm=algorithm, load=lambda role: models[role], digests={{r: r for r in models}},
    items=toy_items(algorithm.batch, 13), rollout=None, validation=None,
    optim=Optim(steps={steps}, batch_size=5, micro_batch_size=2, lr=1e-2), pad_id=0, seed=0,
    folder=folder, cache=folder, ranks=ranks,
))
assert list(out) == ["policy"] * ranks.is_main  # who does not write keeps no copy
for model in out.values():
    print(next(model.parameters()).dtype, ranks.size, ranks.accelerator.distributed_type)
ranks.barrier()
end(0)
"""


@pytest.mark.slow
def test_two_ranks_give_the_losses_of_one(tmp_path):
    losses = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        script = tmp_path / f"train{ranks}.py"
        script.write_text(TRAIN.format(precision="fp32", folder=str(folder), steps=6))
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*launch, "--nproc-per-node", str(ranks), str(script)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"float32 {ranks} " in done.stdout
        rows = (folder / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(row)["loss"] for row in rows])
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_max_metrics_take_the_largest_over_counted_positions(tmp_path):
    @dataclass(frozen=True)
    class WithMax(Broken):
        metrics: ClassVar = {"top": __import__("alignzoo").Metric("largest nll")}

        def loss(self, batch, signals, state):
            nll = -signals["policy"]
            shifted = nll.detach().masked_fill(~batch.mask, 1e9)
            return Loss(Term(nll, batch.mask), {"top": Max(shifted, batch.mask)})

    seen = []
    train(job(tmp_path / "run", WithMax(), on_step=lambda s, t, m, _: seen.append(m["top"])))
    assert 0 < max(seen) < 1e3
