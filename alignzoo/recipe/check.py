"""What a typed recipe must still satisfy: references between stages, and the plug-ins' own rules.

Every check is a generator of faults over one stage or one evaluation, so that all problems of a
recipe come out at once. A stage that could not be typed still counts as a name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path as File
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import suggest
from alignzoo.contract.evaluation import Benchmark, RewardBenchmark
from alignzoo.contract.types import LabelledBatch, PairBatch
from alignzoo.contract.verdicts import JudgedBenchmark
from alignzoo.recipe.blocks import (
    AnyStage,
    DataSpec,
    EngineSpec,
    EvaluateSpec,
    GenerateSpec,
    LabelSpec,
    PluginStageSpec,
    RolloutSpec,
    StageKind,
    TrainSpec,
)
from alignzoo.recipe.buffers import buffer_faults
from alignzoo.recipe.faults import Fault, Path
from alignzoo.recipe.judges import (
    judge_faults,
    judged_pairs_faults,
    plugin_faults,
    reward_faults,
    valued_faults,
    wins_faults,
)
from alignzoo.recipe.mixing import mixture_faults, placed
from alignzoo.recipe.options import option_faults
from alignzoo.recipe.reading import reading_faults
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.rewards import placed_rewards
from alignzoo.recipe.roles import (
    LM,
    REWARD,
    Head,
    head_faults,
    rate_faults,
    result_head,
    role_faults,
    wrong_head,
)
from alignzoo.recipe.sampler_faults import sampler_faults
from alignzoo.recipe.special import special_faults
from alignzoo.recipe.training import length_faults, training_faults
from alignzoo.recipe.unread import unmeasured_faults, unread_faults

INITIAL = "initial"  # the recipe's own model, where the name of a stage may stand
POLICY = "policy"
BUILT_IN_ENGINE = "transformers"
_MAKES = {"train": "a model", "generate": "samples", "label": "pairs"}  # what a stage leaves


@dataclass(frozen=True)
class Draft:
    """A stage as far as it could be read; spec None: it has faults of its own."""

    index: int
    name: str
    kind: StageKind | None
    spec: AnyStage | None

    @property
    def path(self) -> Path:
        """Where it stands in the recipe."""
        return ("stages", self.index)


@dataclass(frozen=True)
class Scope:
    """What names can mean."""

    stages: tuple[Draft, ...]
    registry: Registry
    model: str = ""  # the recipe's own

    def stage(self, name: str) -> Draft | None:
        """The (first) stage of that name."""
        return next((draft for draft in self.stages if draft.name == name), None)

    @property
    def heads(self) -> dict[str, Head]:
        """Which head the models of stages have, where that is known."""
        found = {d.name: result_head(d.spec, self.registry) for d in self.stages}
        return {name: head for name, head in found.items() if head is not None}

    def near(self, name: str, others: Iterable[str] = ()) -> str:
        """A question, when a name is nearly that of a stage or another known one; or nothing."""
        known = [*(draft.name for draft in self.stages), *others]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        return f"did you mean '{close[0]}'?" if close else ""


def stage_faults(scope: Scope) -> Iterator[Fault]:
    """Faults of all stages, beyond those of their types."""
    yield from _name_faults(scope)
    for draft in scope.stages:
        if draft.spec is not None:
            found = [*mixture_faults(draft.spec), *_faults(draft.spec, draft, scope)]
            found += unread_faults(draft.spec)
            yield from (fault.under(draft.path) for fault in found)


def evaluate_faults(index: int, spec: EvaluateSpec, scope: Scope) -> Iterator[Fault]:
    """Faults of one block of `evaluate`."""
    end = Draft(len(scope.stages), "", None, None)
    found = [
        *plugin_faults(scope.registry, "benchmark", spec.benchmark, ("benchmark",), spec.with_),
        *_engine_faults(scope.registry, spec.engine, ("engine",)),
        *_measured(spec, end, scope),
        *judge_faults(spec, scope.registry),
        *_opponent_faults(spec, scope.registry),
    ]
    if spec.baseline is not None:
        found += _speaker_faults(spec.baseline, ("baseline",), end, scope)
    for k, name in enumerate(spec.kl_to):
        found += _speaker_faults(name, ("kl_to", k), end, scope)
    yield from (fault.under(("evaluate", index)) for fault in found)


# --- names -----------------------------------------------------------------------------------


def _name_faults(scope: Scope) -> Iterator[Fault]:
    for draft in scope.stages:
        first = scope.stage(draft.name)
        if draft.name and first is not None and first is not draft:
            yield Fault((*draft.path, "name"), f"stage {first.index} is called '{draft.name}' too")
        if draft.name == INITIAL:
            what = f"'{INITIAL}' is the recipe's own model; call the stage something else"
            yield Fault((*draft.path, "name"), what)


def _model_faults(name: str, path: Path, user: Draft, scope: Scope) -> Iterator[Fault]:
    """A name where a model is expected: a stage, "initial", a folder, a hub or plug-in name."""
    stage = scope.stage(name)
    if stage is None:
        if name != INITIAL and not _is_place(name) and (near := scope.near(name)):
            yield Fault(path, f"no stage '{name}'; {near}")
    elif stage.index >= user.index:
        yield Fault(path, _too_late(stage, user))
    elif stage.kind in ("generate", "label"):
        yield Fault(path, f"'{name}' is a {stage.kind} stage: it makes {_MAKES[stage.kind]}, "
                    "not a model")  # fmt: skip


def _speaker_faults(name: str, path: Path, user: Draft, scope: Scope) -> Iterator[Fault]:
    """A name where a language model is expected."""
    yield from _model_faults(name, path, user, scope)
    if what := wrong_head(name, LM, scope.heads):
        yield Fault(path, what)


def _too_late(stage: Draft, user: Draft) -> str:
    if stage.index == user.index:
        return f"stage '{stage.name}' cannot use itself; name an earlier stage"
    return f"stage '{stage.name}' comes later; a stage can use only earlier ones"


def _is_place(name: str) -> bool:
    return "/" in name or File(name).exists()


def _data_faults(data: DataSpec, path: Path, user: Draft, scope: Scope) -> Iterator[Fault]:
    """A block of data: a stage, a dataset of a plug-in (with options), a file, a hub name."""
    name, at = data.name, (*path, "name")
    datasets, stage = scope.registry.datasets, scope.stage(data.name)
    if stage is not None:
        if stage.index >= user.index:
            yield Fault(at, _too_late(stage, user))
        elif stage.kind == "train":
            yield Fault(at, f"'{name}' is a train stage: it makes a model, not data")
    elif name in datasets:
        prefix = (*path, "with")
        yield from (fault.under(prefix) for fault in option_faults(datasets[name], data.with_))
        return
    elif not _is_place(name) and (near := scope.near(name, datasets)):
        yield Fault(at, f"no stage or dataset '{name}'; {near}")
    if data.with_:
        what = f"'{name}' is not a dataset of a plug-in, so it takes no options"
        yield Fault((*path, "with"), what, at_key=True)


def _measured(spec: EvaluateSpec, end: Draft, scope: Scope) -> Iterator[Fault]:
    """What the benchmark measures: models that answer, or rewards and judges of given pairs."""
    cls = scope.registry.benchmarks.get(spec.benchmark, Benchmark)
    judged = issubclass(cls, JudgedBenchmark) and bool(spec.data or spec.rewards)
    if not issubclass(cls, RewardBenchmark) and not judged:
        for key in ("data", "rewards") if cls is not Benchmark else ():
            if getattr(spec, key):
                what = f"{spec.benchmark} measures models on prompts of its own; remove this"
                yield Fault((key,), what, at_key=True)
        yield from _evaluated(spec, scope)
        return
    yield from unmeasured_faults(spec, several=judged)
    yield from _reward_faults(spec, end, scope)
    yield from judged_pairs_faults(spec, scope.registry)
    for part, path in placed(spec.data, ("data",)) if spec.data else ():
        yield from _data_faults(part, path, end, scope)
        source = scope.stage(part.name)
        if source is not None and source.kind == "generate":
            what = f"'{source.name}' makes samples, not pairs; name a label stage"
            yield Fault((*path, "name"), what)


def _reward_faults(spec: EvaluateSpec, end: Draft, scope: Scope) -> Iterator[Fault]:
    """A reward is a scalar head's, or a log-ratio of two language models."""
    for name, reward in spec.rewards.items():
        for key, model in reward.models.items():
            path = ("rewards", name, key)
            yield from _model_faults(model, path, end, scope)
            if wrong := wrong_head(model, LM if reward.over else REWARD, scope.heads):
                yield Fault(path, wrong)


def _evaluated(spec: EvaluateSpec, scope: Scope) -> Iterator[Fault]:
    """`models` are stages that leave a model, or "initial"."""
    able = [d.name for d in scope.stages if d.kind not in ("generate", "label") and d.name]
    if spec.models is None:
        speak = (d for d in scope.stages if scope.heads.get(d.name) != "scalar")
        if not any(draft.kind in ("train", None) for draft in speak):
            yield Fault((), f"no stage trains a language model; say `models: [{INITIAL}]`")
        return
    for k, name in enumerate(spec.models):
        stage = scope.stage(name)
        if name not in (*able, INITIAL):
            what = f"no stage '{name}'" if stage is None else f"'{name}' is a {stage.kind} stage"
            near = suggest(name, [*able, INITIAL]) if stage is None else ""
            yield Fault(("models", k), f"{what}; models are train stages or '{INITIAL}'{near}")
        elif wrong := wrong_head(name, LM, scope.heads):
            yield Fault(("models", k), wrong)


# --- plug-ins --------------------------------------------------------------------------------


def _opponent_faults(spec: EvaluateSpec, registry: Registry) -> Iterator[Fault]:
    """A comparison needs a baseline, the recipe's or the benchmark's own."""
    cls = registry.benchmarks.get(spec.benchmark)
    if spec.baseline is not None or cls is None or not issubclass(cls, JudgedBenchmark):
        return
    if spec.rewards:
        return  # the pairs bring both answers
    if cls.compares and cls.baseline_answers is JudgedBenchmark.baseline_answers:
        yield Fault(("benchmark",), f"{cls.name} compares two models; name the other: `baseline:`")


def _engine_faults(registry: Registry, engine: EngineSpec, path: Path) -> Iterator[Fault]:
    """An engine by name and its options; those of the built-in one stand beside it."""
    name = engine.name
    if name != BUILT_IN_ENGINE or name in registry.engines:
        yield from plugin_faults(registry, "engine", name, (*path, "name"), engine.with_)
        return
    for key in engine.with_:
        what = f"unknown option (the {name} engine takes none here; batch_size stands beside it)"
        yield Fault((*path, "with", key), what, at_key=True)


# --- one function per kind of stage ----------------------------------------------------------


@singledispatch
def _faults(spec: AnyStage, draft: Draft, scope: Scope) -> Iterator[Fault]:
    """Faults of a stage; paths start at its keys."""
    raise TypeError(f"{type(spec).__name__} is no stage")


@_faults.register
def _(spec: GenerateSpec, draft: Draft, scope: Scope) -> Iterator[Fault]:
    if spec.policy is not None:
        yield from _speaker_faults(spec.policy, (POLICY,), draft, scope)
    yield from _data_faults(spec.data, ("data",), draft, scope)
    yield from _engine_faults(scope.registry, spec.engine, ("engine",))


@_faults.register
def _(spec: LabelSpec, draft: Draft, scope: Scope) -> Iterator[Fault]:
    yield from _data_faults(spec.data, ("data",), draft, scope)
    yield from valued_faults(spec, scope.registry, ())
    stage = scope.stage(spec.data.name)
    if stage is not None and stage.index < draft.index and stage.kind == "label":
        what = f"'{stage.name}' is a label stage; a judge needs the responses of a generate stage"
        yield Fault(("data", "name"), what)


@_faults.register
def _(spec: PluginStageSpec, draft: Draft, scope: Scope) -> Iterator[Fault]:
    yield from plugin_faults(scope.registry, "stage", spec.stage, ("stage",), spec.with_)
    for key, name in spec.models.items():
        yield from _model_faults(name, ("models", key), draft, scope)
    if spec.data is not None:
        yield from _data_faults(spec.data, ("data",), draft, scope)
    if spec.stage in scope.registry.stages:
        source = scope.stage(spec.data.name) if spec.data else None
        kind = source.kind if source else None
        yield from reading_faults(spec, scope.registry.stages[spec.stage], kind)


@_faults.register
def _(spec: TrainSpec, draft: Draft, scope: Scope) -> Iterator[Fault]:
    if spec.policy is not None:
        yield from _model_faults(spec.policy, (POLICY,), draft, scope)
    for role, name in spec.roles.items():
        yield from _model_faults(name, ("roles", role), draft, scope)
    for part, path in placed(spec.data, ("data",)):
        yield from _data_faults(part, path, draft, scope)
    if spec.validation is not None:
        yield from _data_faults(spec.validation.data, ("validation", "data"), draft, scope)
    if spec.rollout is not None:
        yield from _rollout_faults(spec.rollout, draft, scope)
    yield from plugin_faults(
        scope.registry, "algorithm", spec.algorithm, ("algorithm",), spec.with_
    )
    if spec.algorithm in scope.registry.algorithms:
        cls = scope.registry.algorithms[spec.algorithm]
        yield from role_faults(spec, cls)
        yield from rate_faults(spec, cls)
        yield from head_faults(spec, cls, scope.heads)
        yield from _batch_faults(spec, cls, scope)
        yield from training_faults(spec, cls)
        yield from special_faults(spec, cls)
        named = [spec.policy, *(spec.roles.get(role) for role in cls.roles)]
        yield from length_faults(spec, {_origin(name, scope) for name in named})
        yield from sampler_faults(spec, cls, scope.registry)
        yield from buffer_faults(spec, cls)
        yield from wins_faults(spec, cls, scope.registry)
        yield from _metric_faults(spec, cls)


def _origin(name: str | None, scope: Scope) -> str:
    """The model that a stage's model descends from; other names stand for themselves."""
    for _ in scope.stages:  # a stage may name itself, which is a fault of its own
        stage = scope.stage(name) if name else None
        if stage is None or not isinstance(stage.spec, TrainSpec):
            break
        name = stage.spec.policy
    return scope.model if name in (None, INITIAL) else str(name)


def _rollout_faults(rollout: RolloutSpec, draft: Draft, scope: Scope) -> Iterator[Fault]:
    registry = scope.registry
    yield from _engine_faults(registry, rollout.engine, ("rollout", "engine"))
    yield from reward_faults(rollout, registry)
    for part, path in placed_rewards(rollout.reward):
        if part.model is not None:
            yield from _model_faults(part.model, (*path, "model"), draft, scope)


def _batch_faults(spec: TrainSpec, cls: type[Algorithm[Any]], scope: Scope) -> Iterator[Fault]:
    """The kind of batch decides what the data must hold."""
    read = spec.rollout is None or spec.rollout.share < 1
    given = read and issubclass(cls.batch, PairBatch | LabelledBatch)
    for part, path in placed(spec.data, ("data",)):
        stage = scope.stage(part.name)
        if given and stage is not None and stage.kind == "generate":
            what = f"{cls.name} needs preferences; put a label stage between it and '{stage.name}'"
            yield Fault((*path, "name"), what)


def _metric_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """A metric that is nearly a declared one is a slip; others may be made by the loss itself."""
    if spec.validation is None or spec.validation.metric in (known := ["loss", *cls.metrics]):
        return
    if close := difflib.get_close_matches(spec.validation.metric, known, n=1, cutoff=0.8):
        what = f"unknown metric; did you mean '{close[0]}'? ({cls.name} has: {', '.join(known)})"
        yield Fault(("validation", "metric"), what)
