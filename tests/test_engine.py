"""The engine's promises: same gradient however it is computed, same run however it is cut."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from alignzoo_aligndistil import AlignDistil
from alignzoo_dpo import DPO, IPO
from alignzoo_ppo import PPO
from alignzoo_sft import SFT
from torch.utils._python_dispatch import TorchDispatchMode

from alignzoo import Algorithm, Loss, Max, Mean, PairBatch, RolloutBatch, Term, TextBatch
from alignzoo.engine.batching import micro_batches, optimiser_batches
from alignzoo.engine.generate import TransformersEngine
from alignzoo.engine.optim import Optim, rate
from alignzoo.engine.parallel import start_ranks
from alignzoo.engine.scoring import (
    Chunked,
    ScoringModule,
    dense,
    head_output,
    padding_share,
    row_groups,
)
from alignzoo.engine.snapshots import cache_name
from alignzoo.engine.sources import Rollout
from alignzoo.engine.train import Job, Validation, train
from alignzoo.errors import PluginError, TrainingError
from alignzoo.ops import kl, log_prob, sequence_sum
from alignzoo.testing import (
    check_algorithm,
    gradients,
    tiny_model,
    tiny_models,
    toy_items,
    toy_sampling,
)

METHODS = [
    SFT(),
    SFT(reduction="sequence_mean"),
    DPO(),
    DPO(beta=0.01, label_smoothing=0.1),
    IPO(),
    AlignDistil(r=2.0),
    AlignDistil(r=15.0, tvd="l1", positions="official", beta_weighting="none"),
    AlignDistil(extrapolation="constant", beta=0.05, reward="vanilla", reduction="token_mean"),
    PPO(),
    PPO(reduction="token_mean", kl_estimator="k3", value_clip=None),
]


@pytest.mark.parametrize("algorithm", METHODS, ids=lambda a: f"{a.name}-{hash(a) % 1000}")
def test_every_method_keeps_the_contract(algorithm):
    check_algorithm(algorithm)


def rollout(n_prompts=6, **changes) -> Rollout:
    prompts = [item.rows[0].prompt for item in toy_items(TextBatch, n_prompts)]
    known = {
        "prompts": prompts,
        "reward": lambda numbers, done: [float(len(c.ids)) for c in done],
        "engine": TransformersEngine(batch_size=16),
        "sampling": toy_sampling(6),
        "prompts_per_buffer": 4,
        "samples_per_prompt": 2,
        "epochs": 2,
    }
    return Rollout(**(known | changes))


def job(folder: Path, algorithm=None, *, steps=6, validation=None, **changes) -> Job:
    algorithm = algorithm or DPO()
    models = tiny_models(algorithm)
    on_policy = "rollout" in changes
    known = {
        "algorithm": algorithm,
        "load": lambda role: models[role],
        "digests": {role: f"digest of {role}" for role in models},
        "items": () if on_policy else toy_items(algorithm.batch, 11),
        "rollout": None,
        "validation": validation,
        "optim": Optim(steps=steps, batch_size=4, micro_batch_size=3, lr=1e-2, save_every=2),
        "pad_id": 0,
        "seed": 0,
        "folder": folder,
        "cache": folder / "cache",
        "ranks": start_ranks("fp32"),
    }
    folder.mkdir(exist_ok=True)
    return Job(**(known | changes))


def weights(models) -> dict[str, torch.Tensor]:
    return {f"{r}.{n}": p.clone() for r, m in models.items() for n, p in m.named_parameters()}


def assert_equal_runs(one: Path, two: Path, first, second) -> None:
    assert (one / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()
    for name, x in weights(first).items():
        assert torch.equal(x, weights(second)[name]), name


CASES = [
    (DPO(), {}),
    (AlignDistil(r=2.0), {}),
    (AlignDistil(r=2.0), {"rollout": rollout(epochs=1)}),
    (PPO(), {"rollout": rollout()}),
]


@pytest.mark.parametrize(("algorithm", "changes"), CASES, ids=["dpo", "off", "on", "ppo"])
def test_the_same_seed_gives_the_same_run_bit_for_bit(tmp_path, algorithm, changes):
    runs = [train(job(tmp_path / name, algorithm, **changes)) for name in ("a", "b")]
    assert_equal_runs(tmp_path / "a", tmp_path / "b", *runs)


@pytest.mark.parametrize(("algorithm", "changes"), CASES, ids=["dpo", "off", "on", "ppo"])
@pytest.mark.parametrize("when", [1, 3, 5])
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


def test_a_crash_resumes_from_the_last_checkpoint_bit_for_bit(tmp_path):
    whole = train(job(tmp_path / "whole", AlignDistil(r=2.0)))

    def crash(step, total, metrics, timing):
        if step == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(job(tmp_path / "cut", AlignDistil(r=2.0), on_step=crash))
    resumed = train(job(tmp_path / "cut", AlignDistil(r=2.0)))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor made."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        outs = out if isinstance(out, (tuple, list)) else (out,)
        for x in outs:
            if isinstance(x, torch.Tensor):
                self.size = max(self.size, x.numel())
        return out


def largest_tensor(scorer, n_rows, vocabulary=3000) -> int:
    models = {role: tiny_model(i, vocabulary=vocabulary) for i, role in enumerate("ab")}
    module = ScoringModule(models, frozenset("a"), scorer)
    batch = TextBatch.collate(toy_items(TextBatch, n_rows, vocabulary=vocabulary), 0)
    with Largest() as seen:
        grid = module(batch, {"kl": kl("a", "b"), "lp": log_prob("a")})
        sum(x.sum() for x in grid.values()).backward()
    return seen.size


def test_chunked_scoring_never_makes_a_tensor_of_all_positions_times_the_vocabulary():
    small = [largest_tensor(Chunked(1, smallest=8), n) for n in (16, 64)]
    assert small[0] == small[1]  # a chunk or a weight gradient, not the number of positions
    assert largest_tensor(dense, 64) > 3 * small[1]


def test_logits_are_float32_from_bfloat16_inputs():
    head = torch.nn.Linear(64, 50, bias=False, dtype=torch.bfloat16)
    hidden = torch.randn(9, 64).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = head_output(head, hidden)
    exact = hidden.double() @ head.weight.double().T
    assert out.dtype == torch.float32
    assert (out - exact).abs().max() < 1e-5  # bf16 products would be off by about 1e-2


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
        (Explodes(), TrainingError, "Lower the learning rate"),
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
            return super().start(tiny_model(99))

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


def test_padding_stays_under_a_fifth_whatever_the_lengths():
    generator = torch.Generator().manual_seed(0)
    for spread in (0.01, 0.3, 0.8, 2.0):
        lengths = torch.empty(64).log_normal_(4.0, spread, generator=generator)
        lengths = lengths.clamp(1, 1024).long()
        groups = row_groups(lengths)
        assert sorted(torch.cat(groups).tolist()) == list(range(64))
        assert padding_share(lengths) < 0.2
        assert len(groups) < 20


def test_micro_batches_hold_every_item_once_longest_first():
    batch = TextBatch.collate(toy_items(TextBatch, 10), 0)
    items = torch.tensor([7, 2, 9, 4, 0])
    micro = micro_batches(batch, items, 2)
    assert sorted(torch.cat(micro).tolist()) == sorted(items.tolist())
    lengths = batch.attention.sum(-1)[torch.cat(micro)].tolist()
    assert lengths == sorted(lengths, reverse=True)


def test_an_epoch_shows_every_item_once_and_epochs_differ_in_order():
    steps = list(optimiser_batches(10, 5, epochs=2, seed=0, shuffle=True))
    assert sorted(torch.cat(steps[:2]).tolist()) == list(range(10))
    assert not torch.equal(torch.cat(steps[:2]), torch.cat(steps[2:]))
    assert [len(x) for x in optimiser_batches(3, 5, 1, 0, True)] == [3]


def test_the_rate_rises_to_its_peak_and_falls_to_its_share():
    optim = Optim(warmup=0.1, schedule="cosine", min_lr=0.1)
    shares = [rate(optim, step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and shares[9] == 1.0
    assert shares[10] == 1.0 and shares == sorted(shares[:10]) + sorted(shares[10:], reverse=True)
    assert shares[-1] == pytest.approx(0.1, abs=2e-3)


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
from alignzoo.engine.optim import Optim
from alignzoo.engine.parallel import start_ranks
from alignzoo.engine.train import Job, train
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
print(next(out["policy"].parameters()).dtype, ranks.size, ranks.accelerator.distributed_type)
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


def test_an_empty_response_contributes_nothing_and_is_never_nan():
    items = toy_items(TextBatch, 3)
    empty = replace(items[0], rows=(replace(items[0].rows[0], response=()),))
    batch = TextBatch.collate([empty, *items[1:]], 0)
    found = gradients(AlignDistil(r=2.0), batch)
    assert math.isfinite(found.loss)


def test_a_buffer_is_cut_with_its_signals():
    batch = RolloutBatch.collate(toy_items(RolloutBatch, 6), 0)
    items = torch.tensor([4, 1])
    part = batch.take(items)
    known = batch.take_signals(items, {"x": batch.ids.double(), "reward": batch.reward})
    assert torch.equal(known["x"], part.ids.double())
    assert torch.equal(known["reward"], part.reward)


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
