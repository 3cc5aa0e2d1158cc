"""Every promise of an algorithm and of a rollout engine has a flawed plug-in that is caught."""

from __future__ import annotations

import copy
import random
import re
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from test_kit import FLAWS, Sound, WrongStart

from alignzoo import (
    Completion,
    Loss,
    Mean,
    Metric,
    Role,
    RolloutEngine,
    RolloutSession,
    Signal,
    Term,
)
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.ops import entropy, log_prob, sequence_sum
from alignzoo.testing import algorithms, run_algorithm_checks, run_engine_checks
from alignzoo.testing.checks import try_all

LEFT = "batch, signals and state are left as they were"
STEADY = "equal inputs give an equal loss: no randomness"
WEIGHTS = "weights depend on the batch alone"
ALWAYS = "every batch has every metric"


class Scribbles(Sound):
    """L = -S(y_w), with a mask that grows. Source: https://example.org."""

    def loss(self, batch, signals, state):
        batch.response[:, 1:] = batch.attention[:, 1:]
        return super().loss(batch, signals, state)


class PreparesInPlace(Sound):
    """L = -S(y_w), with snapshots that are halved. Source: https://example.org."""

    def snapshots(self):
        return {"old": log_prob("policy")}

    def prepare(self, batch, signals, world):
        signals["old"].mul_(0.5)
        return {}


class Dices(Sound):
    """L = -S(y_w) on some of the pairs. Source: https://example.org."""

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)[batch.chosen]
        kept = torch.rand(total.shape) < 0.9
        return Loss(Term(-total * kept), {"nll": Mean(-total.detach())})


class DicesInPlain(Sound):
    """L = -S(y_w) times a number of Python's own. Source: https://example.org."""

    def loss(self, batch, signals, state):
        loss = super().loss(batch, signals, state)
        return Loss(Term(loss.terms.value * random.random()), loss.metrics)


class PreparesNoise(Sound):
    """L = -S(y_w) against noise that no key decides. Source: https://example.org."""

    def prepare(self, batch, signals, world):
        return {"noise": torch.rand(batch.ids.shape)}


class WeighsLive(Sound):
    """L = -S(y_w), where the likely pairs count more; weights always sum to I.

    Source: https://example.org.
    """

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)[batch.chosen]
        weight = torch.softmax(total.detach(), 0) * len(total)
        return Loss(Term(-total, weight), {"nll": Mean(-total.detach())})


class Sometimes(Sound):
    """L = -S(y_w), with a metric for long batches. Source: https://example.org."""

    metrics: ClassVar = {**Sound.metrics, "long": Metric("length of long batches")}

    def loss(self, batch, signals, state):
        loss = super().loss(batch, signals, state)
        lengths = batch.response[batch.chosen].sum(-1).double()
        if lengths.max() < 5:
            return loss
        return Loss(loss.terms, {**loss.metrics, "long": lengths})


class Unbound(Sound):
    """L = -S(y_w) of a role that nobody declares. Source: https://example.org."""

    roles: ClassVar = {"policy": Role(trainable=True), "reference": Role(like="ghost")}


class Centred(Sound):
    """L = -S(y_w) minus the mean of whatever is scored together. Source: https://example.org."""

    def signals(self):
        plain = log_prob("policy").reduce

        def reduce(outputs, labels):
            x = plain(outputs, labels)
            return x - x.mean()

        return {"policy": Signal(("policy",), reduce)}


class Hoards(Sound):
    """L = -S(y_w), and all logits are kept. Source: https://example.org."""

    kept: ClassVar = []

    def signals(self):
        plain = log_prob("policy").reduce

        def reduce(outputs, labels):
            self.kept.append(outputs["policy"].detach())
            same = [x for x in self.kept if x.shape[-1] == outputs["policy"].shape[-1]]
            return plain(outputs, labels) + 0 * torch.cat(same).sum().float()

        return {"policy": Signal(("policy",), reduce)}


class Rootless(Sound):
    """L = -S(y_w) + sqrt(0), whose gradient is no number. Source: https://example.org."""

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)[batch.chosen]
        return Loss(Term(-total + (total - total).sqrt()), {"nll": Mean(-total.detach())})


class Forged(Sound):
    """L = -S(y_w), and a closed form of another signal. Source: https://example.org."""

    def signals(self):
        plain = log_prob("policy")
        return {"policy": replace(plain, reduce=plain.reduce, closed=entropy("policy").closed.form)}


CARELESS = [
    (Scribbles, LEFT),
    (PreparesInPlace, LEFT),
    (Dices, STEADY),
    (DicesInPlain, STEADY),
    (PreparesNoise, STEADY),
    (WeighsLive, WEIGHTS),
    (Sometimes, ALWAYS),
    (Unbound, "roles can be bound"),
    (Centred, "fused scoring equals dense"),
    (Rootless, "finite gradients, on trainable roles only"),
    (Forged, "closed forms give what reduce gives"),
    (Hoards, "no tensor of positions x vocabulary"),
]


class Formless(Sound):
    """The likelihood of chosen responses. Source: https://example.org."""


class Sourceless(Sound):
    """L = -S(y_w), the likelihood of chosen responses."""


class Mute(Sound):
    """L = -S(y_w). Source: https://example.org."""

    metrics: ClassVar = {"nll": Metric("")}


class Idle(Sound):
    """L = -S(y_w) of a model that never learns. Source: https://example.org."""

    roles: ClassVar = {"policy": Role()}


class Stranger(Sound):
    """L = -S(y_w) of a model that is nobody's role. Source: https://example.org."""

    def snapshots(self):
        return {"other": log_prob("other")}


DETAILS = [
    (Formless, "docstring has formula and source", "is not a formula"),
    (Sourceless, "docstring has formula and source", "names no source"),
    (Mute, "options and metrics are explained", "no explanation of nll"),
    (Idle, "roles can be bound", "no role is trainable"),
    (Stranger, "roles can be bound", r"undeclared roles: \['other'\]"),
]


@pytest.mark.parametrize(("flawed", "promise", "detail"), DETAILS, ids=lambda x: str(x)[:30])
def test_every_part_of_a_promise_that_can_be_read_is_told_apart(flawed, promise, detail):
    checks = try_all(algorithms._static(flawed()), flawed())
    (broken,) = [c for c in checks if not c.kept]
    assert broken.promise == promise
    assert re.search(detail, broken.detail)


def line_of(cls, member):
    return getattr(cls, member).__code__.co_firstlineno


@pytest.mark.parametrize(("flawed", "promise"), CARELESS, ids=[c.__name__ for c, _ in CARELESS])
def test_a_careless_method_is_told_which_promise_it_breaks_in_which_file(flawed, promise):
    broken = {c.promise: c for c in run_algorithm_checks(flawed()) if not c.kept}
    assert promise in broken
    assert broken[promise].where.partition(":")[0].endswith("test_kit_flaws.py") or (
        flawed.loss is Sound.loss and "test_kit.py" in broken[promise].where
    )


def test_the_line_is_that_of_the_member_or_of_the_statement_that_raised():
    class Raises(Sound):
        """L = -S(y_w). Source: https://example.org."""

        def loss(self, batch, signals, state):
            return Loss(Term(signals["nothing"]))

    checks = {c.promise: c for c in run_algorithm_checks(Raises())}
    assert checks["micro-batches change nothing"].where.endswith(
        f"test_kit_flaws.py:{line_of(Raises, 'loss') + 1}"
    )
    steady = {c.promise: c for c in run_algorithm_checks(Dices())}[STEADY]
    assert steady.where.endswith(f"test_kit_flaws.py:{line_of(Dices, 'loss')}")
    assert "world.uniform" in steady.detail


def test_every_promise_of_an_algorithm_has_a_flawed_plugin():
    flawed = {promise for _, promise in [*FLAWS, *CARELESS]}
    thawed = {"options are frozen and survive YAML", "options and metrics are explained"}
    promises = {c.promise for c in run_algorithm_checks(WrongStart())}
    assert promises == flawed | thawed  # tests/kit/test_kit.py tries both


# --- rollout engines ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrapped(RolloutEngine):
    """Samples as the built-in engine does, except for one thing."""

    name = "wrapped"

    def start(self, model):
        return Session(self, TransformersEngine().start(model))

    def before(self, prompts, sampling, keys):
        return prompts, sampling, keys

    def after(self, done):
        return done


class Session(RolloutSession):
    def __init__(self, engine, inner):
        self.engine, self.inner = engine, inner

    def sync(self, weights, version):
        self.inner.sync(weights, version)

    def generate(self, prompts, sampling, keys):
        done = self.inner.generate(*self.engine.before(prompts, sampling, keys))
        return self.engine.after(done)


class Tempered(Wrapped):
    def after(self, done):
        return [replace(c, log_probs=tuple(2 * x for x in c.log_probs)) for c in done]


class RunsOn(Wrapped):
    def after(self, done):
        return [Completion((*c.ids, 3), (*c.log_probs, -1.0), c.ended) for c in done]


class Crowded(Wrapped):
    def before(self, prompts, sampling, keys):
        return prompts, sampling, [key + len(keys) for key in keys]


class NeverGreedy(Wrapped):
    def before(self, prompts, sampling, keys):
        return prompts, replace(sampling, temperature=sampling.temperature or 1.0), keys


class NeverEmpty(Wrapped):
    def after(self, done):
        return done or [Completion((1,), (0.0,), True)]


class HeadStays(Wrapped):
    """One server for all sessions. A reload forgets the head, which the server holds apart, and
    does so alike every time, so that the engine agrees with itself."""

    def __init__(self):
        self.server = None

    def start(self, model):
        if self.server is None:
            self.server = copy.deepcopy(model)
            self.server.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        session = Reloaded(self, TransformersEngine().start(self.server))
        session.sync(model.named_parameters(), 0)
        return session


class Reloaded(Session):
    def sync(self, weights, version):
        with torch.no_grad():
            for name, x in weights:
                self.engine.server.get_parameter(name).copy_(x)


class SaysOldLogProbs(Wrapped):
    """Samples from the new weights, and says what the first ones thought of it."""

    def start(self, model):
        return Forgetful(self, TransformersEngine().start(model), copy.deepcopy(model))


class Forgetful(Session):
    def __init__(self, engine, inner, first):
        super().__init__(engine, inner)
        self.first = first

    def generate(self, prompts, sampling, keys):
        done = super().generate(prompts, sampling, keys)
        return [replace(c, log_probs=self.old(p, c)) for p, c in zip(prompts, done, strict=True)]

    @torch.no_grad()
    def old(self, prompt, completion):
        ids = torch.tensor([[*prompt, *completion.ids]])
        every = self.first(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return tuple(every.gather(1, ids[0, len(prompt) :, None])[:, 0].tolist())


ENGINES = [
    (HeadStays, "sync brings in new weights"),
    (SaysOldLogProbs, "sync brings in new weights"),
    (Tempered, "log-probs are the trainer's"),
    (RunsOn, "a stop token ends a response"),
    (Crowded, "a sample depends on its key and prompt alone"),
    (NeverGreedy, "greedy sampling takes the likeliest token"),
    (NeverEmpty, "no prompts, no completions"),
]


@pytest.mark.parametrize(("flawed", "promise"), ENGINES, ids=[c.__name__ for c, _ in ENGINES])
def test_a_flawed_engine_is_told_which_promise_it_breaks(flawed, promise):
    broken = {c.promise: c for c in run_engine_checks(flawed()) if not c.kept}
    assert promise in broken
    assert "test_kit_flaws.py" in broken[promise].where


def test_every_promise_of_an_engine_has_a_flawed_plugin():
    checks = run_engine_checks(Wrapped())
    assert all(c.kept for c in checks)
    assert {c.promise for c in checks} == {promise for _, promise in ENGINES}
