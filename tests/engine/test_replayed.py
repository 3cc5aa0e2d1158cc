"""Steps that are recorded and replayed on a GPU: the samples of steps that are launched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from family_models import NAMED, build

from alignzoo.contract.rollout import Sampling, sample_key
from alignzoo.engine.sampling import static
from alignzoo.engine.sampling.generate import (
    MixedSession,
    TransformersEngine,
    TransformersSession,
)
from alignzoo.engine.sampling.mixtures import Mixture
from alignzoo.engine.sampling.replay import Replayed, waits
from alignzoo.engine.sampling.ways import Way, way_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="it needs a GPU"),
]
PLAIN, REPLAYED = Way(stepped=True), Way(stepped=True, captured=True)
PROMPTS = [tuple(range(20, 20 + n)) for n in (1, 7, 3, 7, 12, 2, 5, 9)] * 3
KEYS = [sample_key(n) for n in range(len(PROMPTS))]
SAMPLING = Sampling(max_new_tokens=40, stop_ids=tuple(range(400, 440)), min_new_tokens=2)


@pytest.fixture(autouse=True)
def recorded(monkeypatch):
    """How often a step was recorded; places fill after a few steps, and rows leave soon."""
    monkeypatch.setattr(static, "WIDER", 9)
    monkeypatch.setattr(static, "FEW", 2)
    made, record = [], Replayed._recorded

    def noted(self, step):
        made.append(record(self, step))
        return made[-1]

    monkeypatch.setattr(Replayed, "_recorded", noted)
    return made


def model_of(name, seed=1):
    torch.manual_seed(seed)
    return build(NAMED[name], seed).eval().cuda()


def sampled(model, way, sampling=SAMPLING):
    return TransformersSession(model, 256, way).generate(PROMPTS, sampling, KEYS)


def assert_alike(ours, theirs):
    """But for one row in which a token lies at a boundary."""
    assert sum(a.ids != b.ids for a, b in zip(ours, theirs, strict=True)) <= 1
    for a, b in zip(ours, theirs, strict=True):
        if a.ids == b.ids:
            assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "cohere"])
@pytest.mark.parametrize("shape", [{}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}])
def test_replayed_steps_sample_what_launched_steps_sample(name, shape, recorded):
    model, sampling = model_of(name), replace(SAMPLING, **shape)
    assert way_of(model).captured
    before = len(recorded)
    found = sampled(model, REPLAYED, sampling)
    assert len(recorded) > before + 2
    assert_alike(found, sampled(model, PLAIN, sampling))


def test_a_mixture_is_replayed_as_one_step(recorded):
    models = {"policy": model_of("qwen2", 1), "teacher": model_of("qwen2", 2)}
    mixture = Mixture({"policy": 0.7, "teacher": 0.3})

    def by(way):
        session = MixedSession(models["policy"], 256, way, 0, models, mixture)
        return session.generate(PROMPTS, SAMPLING, KEYS)

    assert_alike(by(REPLAYED), by(PLAIN))
    assert recorded


def test_weights_that_change_between_two_calls_are_the_ones_that_sample():
    model = model_of("qwen2")
    first = sampled(model, REPLAYED)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.2)
    found = sampled(model, REPLAYED)
    assert [c.ids for c in found] != [c.ids for c in first]
    assert_alike(found, sampled(model, PLAIN))


def test_a_model_that_waits_for_the_device_is_stepped_by_launches_and_says_so(recorded):
    model = model_of("qwen2")
    model.model.norm.register_forward_hook(lambda m, args, out: out + 0 * float(out.sum()))
    session = TransformersEngine().start(model)
    assert session.remark.endswith("launched one by one, because its step waits for the device")
    assert_alike(session.generate(PROMPTS, SAMPLING, KEYS), sampled(model, PLAIN))
    assert not recorded
    assert way_of(model_of("qwen2")).captured  # nothing is left of the refusal


def test_a_step_that_waits_is_noticed_and_the_mode_is_put_back():
    x = torch.ones(3, device="cuda")
    assert waits(lambda: float(x.sum())) and not waits(x.sum)
    assert torch.cuda.get_sync_debug_mode() == 0
    with pytest.raises(ZeroDivisionError):
        waits(lambda: 1 / 0)


def test_what_a_call_allocated_is_free_when_it_ends():
    model = model_of("qwen2")
    sampled(model, REPLAYED)  # workspaces of libraries stay
    before = torch.cuda.memory_allocated()
    sampled(model, REPLAYED)
    assert torch.cuda.memory_allocated() == before
