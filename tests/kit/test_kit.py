"""The conformance kit: every plug-in of the repository passes, and every flaw is found."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from eval_data import lay_out

from alignzoo import (
    Algorithm,
    Column,
    Judge,
    Loss,
    Mean,
    Metric,
    PairBatch,
    PromptSample,
    Role,
    RolloutEngine,
    Score,
    ScoredBenchmark,
    Term,
    TextBatch,
    option,
)
from alignzoo.contract.errors import PluginError
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.ops import log_prob, sequence_sum
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import load_plugins
from alignzoo.testing import (
    check_algorithm,
    check_benchmark,
    check_rollout_engine,
    run_algorithm_checks,
    run_benchmark_checks,
    run_engine_checks,
    run_judge_checks,
)

REGISTRY = load_plugins()
NEEDED = {"aligndistil": {"r": 2.0}}  # options without a default
PROMPTS = [PromptSample("Say hello."), PromptSample("Count.")]


@pytest.mark.parametrize("name", sorted(REGISTRY.algorithms))
def test_every_algorithm_of_the_zoo_keeps_its_promises(name):
    check_algorithm(build_options(REGISTRY.algorithms[name], NEEDED.get(name, {})))


@pytest.mark.parametrize("name", sorted(REGISTRY.benchmarks))
def test_every_benchmark_of_the_zoo_keeps_its_promises(name, tmp_path, monkeypatch):
    if REGISTRY.benchmarks[name].files or name.startswith("mt_bench"):
        monkeypatch.setenv("ALIGNZOO_DATA", str(lay_out(tmp_path)))
    check_benchmark(REGISTRY.benchmarks[name]())


def test_the_built_in_rollout_engine_keeps_its_promises():
    check_rollout_engine(TransformersEngine(batch_size=5))


@dataclass(frozen=True)
class Sound(Algorithm[PairBatch]):
    """L = -S(y_w), the likelihood of chosen responses. Source: https://example.org."""

    name = "sound"
    metrics: ClassVar = {"nll": Metric("negative log-likelihood of the chosen", low=0.0)}

    scale: float = option(1.0, "factor", gt=0)

    def signals(self):
        return {"policy": log_prob("policy")}

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)[batch.chosen]
        return Loss(Term(-self.scale * total), {"nll": Mean(-total.detach())})


def test_a_sound_method_passes():
    check_algorithm(Sound())


class AveragesItself(Sound):
    """L = -mean S(y_w): the engine reduces, not the method. Source: https://example.org."""

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)[batch.chosen]
        return Loss(Term(-total.mean()[None]), {"nll": Mean(-total.detach())})


class CountsPadding(Sound):
    """L = -sum over columns, padding included. Source: https://example.org."""

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)[batch.chosen] / batch.ids.shape[1]
        return Loss(Term(-total), {"nll": Mean(-total.detach())})


class HidesTheGradient(Sound):
    """L = -sg[S(y_w)]. Source: https://example.org."""

    roles: ClassVar = {"policy": Role(trainable=True), "idle": Role(trainable=True)}


class Climbs(Sound):
    """L = S(y_w) grows. Source: https://example.org."""

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)[batch.chosen]
        rising = -total.detach() * 2 + total  # the value rises while the gradient descends
        return Loss(Term(rising), {"nll": Mean(-total.detach())})


class NeverLogs(Sound):
    """L = -S(y_w). Source: https://example.org."""

    metrics: ClassVar = {**Sound.metrics, "ghost": Metric("declared, not logged")}


class NoSource(Sound):
    """Something about likelihoods."""


class WrongStart(Sound):
    """L = -S(y_w). Source: https://example.org."""

    def at_start(self):
        return {"loss": 0.0}


class Forgetful(Sound):
    """L = -S(y_w) times a counter outside the checkpoint. Source: https://example.org."""

    calls: ClassVar = [0]

    def loss(self, batch, signals, state):
        self.calls[0] += 1
        total = sequence_sum(signals["policy"], batch.mask)[batch.chosen]
        return Loss(Term(-total * (1 + self.calls[0] / 10)), {"nll": Mean(-total.detach())})


FLAWS = [
    (AveragesItself, "micro-batches change nothing"),
    (CountsPadding, "padding changes nothing"),
    (HidesTheGradient, "finite gradients, on trainable roles only"),
    (Climbs, "twenty steps lower the loss on a toy"),
    (NeverLogs, "declared metrics are logged, and no others"),
    (NoSource, "docstring has formula and source"),
    (WrongStart, "the first step has its known values"),
    (Forgetful, "an interrupted run resumes bit for bit"),
]


@pytest.mark.parametrize(("flawed", "promise"), FLAWS, ids=[c.__name__ for c, _ in FLAWS])
def test_a_flawed_method_is_told_which_promise_it_breaks(flawed, promise):
    broken = [check.promise for check in run_algorithm_checks(flawed()) if not check.kept]
    assert promise in broken
    with pytest.raises(PluginError, match="breaks"):
        check_algorithm(flawed())


def test_a_thawed_dataclass_with_unexplained_options_is_told_so():
    @dataclass
    class Thawed(Algorithm[TextBatch]):
        """L = -S. Source: https://example.org."""

        name = "thawed"
        batch: ClassVar = TextBatch
        scale: float = field(default=1.0)
        signals = Sound.signals

        def loss(self, batch, signals, state):
            return Loss(Term(-sequence_sum(signals["policy"], batch.mask)))

    broken = {c.promise: c.detail for c in run_algorithm_checks(Thawed()) if not c.kept}
    assert "not frozen" in broken["options are frozen and survive YAML"]
    assert "scale" in broken["options and metrics are explained"]


@dataclass(frozen=True)
class Length(Judge):
    """Ten lines that score text: shorter is better."""

    name = "length"

    def score(self, answers):
        return [Score(-float(len(answer.response.text))) for answer in answers]


class Moody(Length):
    """Scores by position."""

    def score(self, answers):
        return [Score(float(n)) for n, _ in enumerate(answers)]


class Lazy(Length):
    """Loses the last answer."""

    def score(self, answers):
        return super().score(answers)[:-1]


def test_a_sound_judge_passes_and_a_flawed_one_is_told():
    assert all(check.kept for check in run_judge_checks(Length(), PROMPTS))
    for judge, promise in ((Moody(), "neighbours"), (Lazy(), "one finite score per answer")):
        broken = [c.promise for c in run_judge_checks(judge, PROMPTS) if not c.kept]
        assert any(promise in text for text in broken)


def test_a_flawed_benchmark_is_told():
    @dataclass(frozen=True)
    class Tilted(ScoredBenchmark):
        """Counts."""

        name = "tilted"

        def prompts(self, seed):
            return PROMPTS

        def measure(self, answers, baseline):
            return {"win_rate": Column((0.9,), "tilted", better=1)}

    broken = {c.promise for c in run_benchmark_checks(Tilted()) if not c.kept}
    assert broken == {"columns hold a finite value per prompt", "a model ties with itself"}


def test_a_flawed_engine_is_told():
    @dataclass(frozen=True)
    class Deaf(RolloutEngine):
        """Samples from a copy that never hears of new weights."""

        name = "deaf"

        def start(self, model):
            session = TransformersEngine().start(copy.deepcopy(model))
            session.sync = lambda weights, version: None
            return session

    broken = [c.promise for c in run_engine_checks(Deaf()) if not c.kept]
    assert broken == ["sync brings in new weights"]


def test_check_prints_a_table_writes_json_and_exits_with_one(cli, tmp_path):
    module = tmp_path / "alignzoo_flawed.py"
    module.write_text(
        "from alignzoo import Judge, Score, hookimpl\n"
        "class Flawed(Judge):\n"
        "    '''Counts down.'''\n"
        "    name = 'flawed'\n"
        "    def score(self, answers):\n"
        "        return [Score(float('nan')) for _ in answers]\n"
        "@hookimpl\n"
        "def register_judges():\n"
        "    return [Flawed]\n"
    )
    status, printed, _ = cli("check", module, "--json", tmp_path / "out.json")
    assert status == 1
    assert "BROKEN" in printed and "not a finite Score" in printed
    assert "one finite score per answer" in (tmp_path / "out.json").read_text()
