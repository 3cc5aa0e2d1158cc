"""An engine that samples from old weights is stopped, whichever method it samples for."""

from copy import deepcopy
from dataclasses import dataclass

import pytest
from engine_jobs import job, rollout
from torch import distributed

from alignzoo import RolloutBatch, RolloutEngine, RolloutSession
from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.train import sources
from alignzoo.engine.train.loop import train
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import load_plugins

ALGORITHMS = load_plugins().algorithms
SAMPLED = sorted(  # of those whose roles see other prompts, rows of data make these
    name
    for name, a in ALGORITHMS.items()
    if issubclass(RolloutBatch, a.batch) and not any(role.sees for role in a.roles.values())
)
NEEDED = {"aligndistil": {"r": 2.0}}
TOLD = "does not sample from the trained weights"


@dataclass(frozen=True)
class Stale(RolloutEngine):
    """An engine that samples from a copy of its own, as one in another process does."""

    name = "stale"

    def start(self, model):
        return StaleSession(TransformersEngine(batch_size=16).start(deepcopy(model)))


@dataclass(frozen=True)
class StaleSession(RolloutSession):
    """Its sync copies nothing."""

    inner: RolloutSession

    def sync(self, weights, version):
        for _ in weights:
            pass

    def generate(self, prompts, sampling, keys):
        return self.inner.generate(prompts, sampling, keys)


def run(folder, name, **changes):
    """A few steps that move the policy by more than the limit."""
    algorithm = build_options(ALGORITHMS[name], NEEDED.get(name, {}))
    optim = Optim(steps=4, batch_size=8, lr=0.1, warmup=0.0, schedule="constant")
    engine = changes.pop("engine", TransformersEngine(batch_size=16))
    sampled = rollout(engine=engine, epochs=1, max_gap=1e-3)
    train(job(folder, algorithm, optim=optim, rollout=sampled, **changes))


@pytest.mark.parametrize("name", SAMPLED)
def test_an_engine_whose_sync_copies_nothing_is_stopped_under_every_method(tmp_path, name):
    run(tmp_path / "sound", name)
    with pytest.raises(TrainingError, match=TOLD):
        run(tmp_path / "stale", name, engine=Stale())


@pytest.fixture
def alone():
    """Sharded layouts of one process join a group of one; it ends with the test."""
    yield start_ranks("fp32")
    if distributed.is_initialized():
        distributed.destroy_process_group()


def kept(model, weights):
    """The weights of the start, whatever is handed over."""
    for _ in weights:
        pass
    return model.named_parameters()


@pytest.mark.parametrize("name", ["aligndistil", "ppo"])
def test_a_copy_for_sampling_that_takes_nothing_over_is_stopped_under_fsdp2(
    tmp_path, monkeypatch, alone, name
):
    how = {"ranks": alone, "strategy": "fsdp2"}
    run(tmp_path / "sound", name, **how)
    monkeypatch.setattr(sources, "_taken_over", kept)
    with pytest.raises(TrainingError, match=TOLD):
        run(tmp_path / "stale", name, **how)
