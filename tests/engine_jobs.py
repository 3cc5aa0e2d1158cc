"""Jobs of a few steps on tiny models, for the tests of the engine."""

from __future__ import annotations

from pathlib import Path

import torch
from alignzoo_dpo import DPO

from alignzoo import TextBatch
from alignzoo.engine.generate import TransformersEngine
from alignzoo.engine.optim import Optim
from alignzoo.engine.parallel import start_ranks
from alignzoo.engine.sources import Rollout
from alignzoo.engine.train import Job
from alignzoo.testing import (
    tiny_models,
    toy_items,
    toy_sampling,
)


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
