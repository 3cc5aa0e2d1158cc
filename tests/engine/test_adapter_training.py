"""Adapters in the training loop: stops, ranks, layouts, and samples of whoever samples."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from adapter_jobs import (
    NAMES,
    STEADY,
    WAYS,
    adapted,
    logits,
    lora_job,
    losses,
    method,
    spread,
    stopped_after,
    stored_bytes,
)
from engine_jobs import assert_equal_runs, rollout
from torch import distributed

from alignzoo import RolloutEngine, RolloutSession, TextBatch
from alignzoo.engine.layout.build import build_layout
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.models.adapters import Adapted, Lora, dressed
from alignzoo.engine.models.tensors import read_tensors
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.engine.train.checkpoint import places
from alignzoo.engine.train.job import Validation
from alignzoo.engine.train.loop import train
from alignzoo.testing import tiny_model, toy_items


def test_gradient_checkpointing_changes_no_figure_of_a_stage(tmp_path):
    for name, on in (("plain", False), ("recomputed", True)):
        optim = Optim(
            steps=4, batch_size=4, micro_batch_size=3, gradient_checkpointing=on, **STEADY
        )
        train(lora_job(tmp_path / name, optim=optim))
    one, two = ((tmp_path / n / "metrics.jsonl").read_text() for n in ("plain", "recomputed"))
    assert one == two


def test_a_stopped_stage_goes_on_bit_for_bit_from_its_adapter_alone(tmp_path):
    parts = adapted(tmp_path / "adapters")
    whole = train(lora_job(tmp_path / "whole", parts=parts))
    stopped_after(tmp_path / "cut", 5, parts=parts)
    weights, _ = read_tensors(places(tmp_path / "cut" / "state")[0] / "weights.safetensors")
    assert len(weights) == 28
    assert all(name.startswith("policy/") and ".lora_" in name for name in weights)
    assert_equal_runs(
        tmp_path / "whole", tmp_path / "cut", whole, train(lora_job(tmp_path / "cut", parts=parts))
    )


def test_the_best_adapter_by_validation_is_kept(tmp_path):
    held = Validation(toy_items(TextBatch, 4), every=1, metric="loss", sign=1)  # the worst is best
    stays = train(lora_job(tmp_path / "run", validation=held))
    start = dressed(tiny_model(), Adapted("base", new=Lora(2, 4.0)), 0)
    trained = train(lora_job(tmp_path / "other"))
    one, two, first = (logits(m["policy"]) for m in (stays, trained, {"policy": start}))
    assert (one - first).abs().max() < (two - first).abs().max()


@dataclass(frozen=True)
class Copying(RolloutEngine):
    """An engine with a plain model of its own, as one in another process has."""

    name = "copying"

    def start(self, model):
        assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain_names()]
        return CopyingSession(tiny_model(seed=9))


@dataclass(frozen=True)
class Looking(RolloutEngine):
    """An engine that samples from the model it was given and copies nothing."""

    name = "looking"

    def start(self, model):
        session = TransformersEngine(batch_size=16).start(model)
        session.sync = lambda weights, version: None
        return session


def plain_names():
    return tiny_model().named_parameters()


class CopyingSession(RolloutSession):
    def __init__(self, own):
        self.own, self.inner = own, TransformersEngine(batch_size=16).start(own)

    def sync(self, weights, version):
        found, own = dict(weights), dict(self.own.named_parameters())
        assert list(found) == list(own)
        with torch.no_grad():
            for name, x in found.items():
                own[name].copy_(x)

    def generate(self, prompts, sampling, keys):
        return self.inner.generate(prompts, sampling, keys)


@pytest.mark.parametrize("engine", [TransformersEngine(batch_size=16), Copying(), Looking()])
def test_samples_come_from_base_and_adapter_whoever_samples(tmp_path, engine):
    optim = Optim(steps=6, batch_size=8, micro_batch_size=8, **STEADY | {"lr": 0.1})
    sampled = rollout(reward=None, max_gap=1e-5, engine=engine)
    train(lora_job(tmp_path / "run", rollout=sampled, optim=optim))
    rows = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    gaps = [row["rollout/logprob_gap"] for row in rows if "rollout/logprob_gap" in row]
    assert len(gaps) >= 3
    assert max(gaps) < 1e-5
    assert abs(rows[-1]["kl_full/teacher_seq"] - rows[0]["kl_full/teacher_seq"]) > 0.1  # it moved


TRAIN = """
import os, sys
from pathlib import Path
from adapter_jobs import spread
from alignzoo.engine.parallel.agreement import end
spread(Path(sys.argv[1]), os.environ["RANK"])
end(0)
"""


@pytest.fixture
def alone():
    """Layouts of one process join a group of one; it ends with the test."""
    yield start_ranks("fp32")
    if distributed.is_initialized():
        distributed.destroy_process_group()


def test_one_process_under_fsdp2_gives_the_losses_of_no_layout(tmp_path, alone):
    spread(tmp_path)
    for way in WAYS:
        one, two = (losses(tmp_path / strategy / way) for strategy in ("ddp", "fsdp2"))
        assert len(one) == 4
        assert two == pytest.approx(one, abs=1e-5)


def test_two_ranks_give_the_losses_of_one_under_ddp_and_fsdp2(tmp_path, alone):
    spread(tmp_path / "one")
    (tmp_path / "train.py").write_text(TRAIN)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command = [*launch, str(tmp_path / "train.py"), str(tmp_path / "two")]
    place = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=place
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for strategy in ("ddp", "fsdp2"):
        for way in WAYS:
            one, two = (tmp_path / ranks / strategy / way for ranks in ("one", "two"))
            assert losses(two) == pytest.approx(losses(one), abs=1e-5)


def test_the_slices_of_a_base_lie_once_in_memory_under_fsdp2(tmp_path, alone):
    models = lora_job(tmp_path / "run").models(NAMES)
    whole = stored_bytes(*models.values())
    module = ScoringModule(models, frozenset({"policy"}), Fused())
    layout = build_layout(alone, module, Optim(), "fsdp2")
    module(TextBatch.collate(toy_items(TextBatch, 3), 0), method().signals())
    sum(x.sum() for _, x in layout.whole("policy"))  # slices again
    groups = [unit._get_fsdp_state()._fsdp_param_group for unit in layout.units]
    slices = [p._sharded_param_data for group in groups for p in group.fsdp_params]
    held = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in slices}
    assert sum(held.values()) <= 1.01 * whole
    assert sum(x.untyped_storage().nbytes() for x in slices) > 1.5 * whole
    for role, model in module.by_role.items():
        alike = dict(layout.whole("policy"))
        base = {n: x for n, x in layout.whole(role) if ".lora_" not in n}
        assert all(torch.equal(alike[n], x) for n, x in base.items())
        assert isinstance(model, type(tiny_model()))
