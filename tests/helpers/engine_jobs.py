"""Jobs of a few steps on tiny models, for the tests of the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from alignzoo_dpo import DPO

from alignzoo import TextBatch
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.train.examples import Examples
from alignzoo.engine.train.job import Job
from alignzoo.engine.train.sources import Rollout
from alignzoo.testing import toy_items, toy_job, toy_sampling


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


def examples(role="policy", at=3, engine=None, n_prompts=3) -> Examples:
    """What a policy answers at some steps; the rows hold its ids."""
    prompts = [item.rows[0].prompt for item in toy_items(TextBatch, n_prompts)]
    engine = engine or TransformersEngine(batch_size=8)

    def row(number, done):
        return {"prompt": number, "ids": list(done.ids), "ended": done.ended}

    return Examples(role, prompts, at, engine, toy_sampling(6), row)


def behind_long_prompts(items, n=40):
    """The items behind prompts that are long enough to be read once for all rows."""
    return [
        replace(x, rows=tuple(replace(row, prompt=(row.prompt * n)[:n]) for row in x.rows))
        for x in items
    ]


def job(folder: Path, algorithm=None, *, steps=6, **changes) -> Job:
    algorithm = algorithm or DPO()
    folder.mkdir(exist_ok=True)
    items = () if "rollout" in changes else toy_items(algorithm.batch, 11)
    optim = Optim(steps=steps, batch_size=4, micro_batch_size=3, lr=1e-2, save_every=2)
    known = {"items": items, "optim": optim} | changes
    return toy_job(algorithm, folder=folder, **known)


def weights(models) -> dict[str, torch.Tensor]:
    return {f"{r}.{n}": p.clone() for r, m in models.items() for n, p in m.named_parameters()}


def assert_equal_runs(one: Path, two: Path, first, second) -> None:
    assert (one / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()
    for name, x in weights(first).items():
        assert torch.equal(x, weights(second)[name]), name
