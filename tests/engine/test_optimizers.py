"""Training with another optimiser than AdamW: what it learns, and that it resumes bit for bit."""

from dataclasses import replace

import pytest
import torch
from engine_jobs import assert_equal_runs, job, weights
from layout_jobs import on_ranks, rows, run_case

from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.train.loop import train
from alignzoo.recipe.optimizing import OPTIMIZERS, SLICED

NONE = {"betas": None, "eps": None, "weight_decay": None}
STEADY = {"steps": 6, "batch_size": 4, "micro_batch_size": 3, "save_every": 2, "lr": 1e-2}
OPTIONS = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.5, "centered": True}}


def optim(kind):
    return Optim(**STEADY, **NONE, kind=kind, options=OPTIONS.get(kind, {}))


class StopError(Exception):
    pass


def stop(step, *_):
    if step == 3:
        raise StopError


@pytest.mark.parametrize("kind", [kind for kind, _ in OPTIMIZERS.values()])
def test_a_run_that_was_interrupted_learns_what_a_whole_one_does(tmp_path, kind):
    whole = train(job(tmp_path / "whole", optim=optim(kind)))
    with pytest.raises(StopError):
        train(job(tmp_path / "cut", optim=optim(kind), on_step=stop))
    resumed = train(job(tmp_path / "cut", optim=optim(kind)))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


def test_sgd_moves_weights_by_the_rate_times_the_gradient(tmp_path):
    still = replace(optim("SGD"), options={}, steps=1, warmup=0.0, max_grad_norm=1e9)
    once = job(tmp_path / "a", optim=replace(still, lr=1e-3))
    before = weights({"policy": once.load("policy")})
    after = weights(train(once))
    far = weights(train(job(tmp_path / "b", optim=replace(still, lr=4e-3))))
    moved = [(after[n] - x, far[n] - x) for n, x in before.items()]
    for near, wide in moved:
        torch.testing.assert_close(4 * near, wide, rtol=1e-3, atol=1e-6)
    assert max(x.abs().max() for x, _ in moved) > 1e-5


@pytest.mark.grid
def test_every_optimiser_learns_on_two_ranks_under_fsdp2_what_it_learns_on_one(tmp_path):
    kinds = [OPTIMIZERS[name][0] for name in SLICED["fsdp2"]]
    options = {kind: NONE | {"kind": kind, "options": OPTIONS.get(kind, {})} for kind in kinds}
    saves = {"steps": 6, "save_every": 2}
    plan = [
        {"folder": str(tmp_path / kind), "case": "dpo", "strategy": "fsdp2", **cut}
        for kind in kinds
        for cut in ({"stop": 3, "optim": saves | options[kind]}, {"optim": saves | options[kind]})
    ]
    done = on_ranks(2, plan)
    assert done.returncode == 0, done.stderr[-3000:]
    for kind in kinds:
        run_case(str(tmp_path / f"{kind}-one"), "dpo", optim=saves | options[kind])
        mine, theirs = (rows(tmp_path / name) for name in (kind, f"{kind}-one"))
        assert len(mine) == len(theirs) == 6
        for one, other in zip(mine, theirs, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], abs=1e-5), kind
