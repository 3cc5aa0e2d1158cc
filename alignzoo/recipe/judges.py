"""What a recipe may ask of judges: in an evaluation, in a reward, in a label stage."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.choosing import CHOOSERS, WIN_CHOOSERS, Chooser
from alignzoo.contract.errors import AlignzooError, PluginError
from alignzoo.contract.evaluation import Benchmark, Judge, compares_pairs, scores_alone
from alignzoo.contract.verdicts import AskedJudge, Decoding, JudgedBenchmark, Question, Usage
from alignzoo.recipe.blocks import EvaluateSpec, RolloutSpec, TrainSpec
from alignzoo.recipe.faults import Fault, Path
from alignzoo.recipe.options import build_options, option_faults, try_options
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.rewards import (
    PEOPLE,
    By,
    QuestionsSpec,
    RewardSpec,
    ValuedSpec,
    placed_rewards,
)
from alignzoo.recipe.spec import JudgeSpec, Spec

OF_JUDGES = ("by", "questions", "max_cost", "vote", "min_parsed")
USUAL: Mapping[By, str] = {"wins": "pairwise", "score": "pointwise"}  # what judges are asked


def plugin_faults(
    registry: Registry, kind: str, name: str, path: Path, given: Mapping[str, Any]
) -> Iterator[Fault]:
    """A plug-in class by name and its options, which stand under "with" beside the name."""
    try:
        cls = registry.find(kind, name)
        options = option_faults(cls, given)
    except PluginError as error:
        yield Fault(path, str(error))
        return
    yield from (fault.under((*path[:-1], "with")) for fault in options)


def _twin_faults(judges: Sequence[JudgeSpec], registry: Registry, path: Path) -> Iterator[Fault]:
    """A panel with one judge twice, which would have two votes and be paid for both.

    What decides its replies tells a judge from others; neither address, price nor patience does.
    """
    classes = [registry.judges.get(judge.name) for judge in judges]
    for k, cls in enumerate(classes):
        alike = [j for j in range(k) if cls is not None and classes[j] is cls]
        own = _identity(judges[k], registry) if alike else None
        first = next((j for j in alike if own and own == _identity(judges[j], registry)), None)
        if first is not None:
            what = f"is the same judge as number {first}, by all that decides its replies (neither "
            what += "address nor price does), and would have two votes; take one of them out"
            yield Fault((*path, "judge", k), what)


def _identity(judge: JudgeSpec, registry: Registry) -> tuple[Mapping[str, Any]] | None:
    """None where the judge cannot be made or read, which is said elsewhere."""
    built, _ = try_options(registry.judges[judge.name], judge.with_)
    try:
        return None if built is None else (built.identity(),)
    except AlignzooError:
        return None


def judge_faults(spec: EvaluateSpec, registry: Registry) -> Iterator[Fault]:
    """A benchmark with a judge of its own takes none; the others take one or a panel."""
    for k, judge in enumerate(spec.judge):
        yield from plugin_faults(registry, "judge", judge.name, ("judge", k, "name"), judge.with_)
    yield from _twin_faults(spec.judge, registry, ())
    yield from _vote_faults(spec, len(spec.judge))
    cls = registry.benchmarks.get(spec.benchmark)
    if cls is None:
        return
    if not issubclass(cls, JudgedBenchmark):
        yield from _unasked_faults(spec, cls)
        return
    if not spec.judge and not spec.rewards:
        yield Fault(("benchmark",), f"{cls.name} needs `judge:`; `alignzoo list judges` names them")
    if spec.samples > 1:
        yield Fault(("samples",), f"{cls.name} takes one answer per prompt")
    if spec.kl_to:
        yield Fault(("kl_to",), f"KL is not measured with {cls.name}; use a benchmark with a rule")


def _unasked_faults(spec: EvaluateSpec, cls: type[Benchmark]) -> Iterator[Fault]:
    """What is for judges, where a benchmark asks none."""
    if spec.judge:
        yield Fault(("judge",), f"{cls.name} has a judge of its own; remove this", at_key=True)
    if _is_set(spec, "min_parsed"):
        what = f"has no effect: {cls.name} asks no judge in words; take it out"
        yield Fault(("min_parsed",), what, at_key=True)


def judged_pairs_faults(spec: EvaluateSpec, registry: Registry) -> Iterator[Fault]:
    """Judges as rewards of given pairs: of a benchmark that words comparisons they are asked."""
    cls = registry.benchmarks.get(spec.benchmark, Benchmark)
    worded = issubclass(cls, JudgedBenchmark)
    if issubclass(cls, JudgedBenchmark):
        yield from _people_faults(spec, cls)
    for name, reward in spec.rewards.items():
        if reward.judge is None:
            continue
        path: Path = ("rewards", name, "judge", "name")
        yield from plugin_faults(registry, "judge", reward.judge.name, path, reward.judge.with_)
        known = registry.judges.get(reward.judge.name)
        if known and not worded and not _scores(known):
            what = f"{known.name} scores no single answer, and a reward is a score of one"
            yield Fault(path, what)


def _scores(judge: type[Judge]) -> bool:
    return scores_alone(judge) and not issubclass(judge, AskedJudge)


def _people_faults(spec: EvaluateSpec, cls: type[JudgedBenchmark]) -> Iterator[Fault]:
    """What cannot be where judges are held against people."""
    if not cls.compares:
        what = f"{cls.name} grades single answers; people compared two, as `pairwise` does"
        yield Fault(("benchmark",), what)
    if spec.judge:
        what = "with `rewards:` the rows are the judges; name this one there"
        yield Fault(("judge",), what, at_key=True)
    if PEOPLE in spec.rewards:
        yield Fault(("rewards", PEOPLE), "is the row of the people; call the judge otherwise")


# --- values of answers -----------------------------------------------------------------------


def is_worded(spec: ValuedSpec, registry: Registry) -> bool:
    """Whether a benchmark words questions: judges are asked, or several vote."""
    classes = [registry.judges.get(judge.name, Judge) for judge in spec.judges]
    return len(classes) > 1 or any(issubclass(cls, AskedJudge) for cls in classes)


def by_of(spec: ValuedSpec, registry: Registry) -> By:
    """What an answer is worth: as the block says, or as the judge can."""
    if spec.by is not None:
        return spec.by
    asked = registry.benchmarks.get(spec.questions.name) if spec.questions else None
    if asked is not None and issubclass(asked, JudgedBenchmark):
        return "wins" if asked.compares else "score"
    alone = all(scores_alone(registry.judges.get(judge.name, Judge)) for judge in spec.judges)
    return "score" if alone else "wins"


def asked_of(spec: ValuedSpec, registry: Registry) -> QuestionsSpec:
    """The benchmark that words the questions, as the block says or as usual."""
    return spec.questions or QuestionsSpec(name=USUAL[by_of(spec, registry)])


def choosers_of(spec: ValuedSpec | None, registry: Registry) -> Mapping[str, Chooser]:
    """How values make pairs: those of one reward may be win rates."""
    return WIN_CHOOSERS if are_wins(spec, registry) else CHOOSERS


def are_wins(spec: ValuedSpec | None, registry: Registry) -> bool:
    """Whether values are win rates as they are: a list of one reward of weight 1 is that one."""
    parts = spec.sources if isinstance(spec, RewardSpec) else (spec,)
    lone = parts[0] if len(parts) == 1 else None
    if lone is None or not lone.judges or getattr(lone, "weight", 1) != 1:
        return False
    return by_of(lone, registry) == "wins"


def valued_blocks(spec: Spec) -> tuple[ValuedSpec, ...]:
    """The blocks of a stage that say who values answers."""
    return tuple(block for block, _ in placed_values(spec))


def placed_values(spec: Spec) -> list[tuple[ValuedSpec, Path]]:
    """The same, each with its place in the stage."""
    if isinstance(spec, ValuedSpec):
        return [(spec, ())]
    rollout = spec.rollout if isinstance(spec, TrainSpec) else None
    return list(placed_rewards(rollout.reward)) if rollout else []


def questions_of(spec: ValuedSpec, registry: Registry) -> JudgedBenchmark:
    """The benchmark that words the questions."""
    chosen = asked_of(spec, registry)
    found: JudgedBenchmark = build_options(registry.find("benchmark", chosen.name), chosen.with_)
    return found


def valued_faults(spec: ValuedSpec, registry: Registry, path: Path) -> Iterator[Fault]:
    """A judge that cannot do what is asked of it, questions of the wrong kind, unknown prices."""
    one = isinstance(spec.judge, str)
    for k, judge in enumerate(spec.judges):
        place = ("judge",) if one else ("judge", k, "name")
        yield from plugin_faults(registry, "judge", judge.name, (*path, *place), judge.with_)
        yield from _ability_faults(spec, judge.name, registry, (*path, *place))
    yield from _twin_faults(spec.judges, registry, path)
    if not spec.judges or any(judge.name not in registry.judges for judge in spec.judges):
        return
    if is_worded(spec, registry):
        yield from _question_faults(spec, registry, path)
    yield from _idle_faults(spec, registry, path)
    yield from _price_faults(spec, registry, path)


def _idle_faults(spec: ValuedSpec, registry: Registry, path: Path) -> Iterator[Fault]:
    """Keys that are set and would do nothing."""
    asked = any(issubclass(registry.judges[judge.name], AskedJudge) for judge in spec.judges)
    idle = [] if asked else ["max_cost", "min_parsed"]
    idle += [] if is_worded(spec, registry) else ["questions"]
    for key in filter(partial(_is_set, spec), idle):
        what = "has no effect: the judge is not asked in words; take it out"
        yield Fault((*path, key), what, at_key=True)
    yield from (fault.under(path) for fault in _vote_faults(spec, len(spec.judges)))


def _vote_faults(spec: ValuedSpec | EvaluateSpec, judges: int) -> Iterator[Fault]:
    if judges < 2 and _is_set(spec, "vote"):
        what = "has no effect: a single judge votes with nobody; name several, or take it out"
        yield Fault(("vote",), what, at_key=True)


def _is_set(spec: Spec, key: str) -> bool:
    return bool(getattr(spec, key) != type(spec).model_fields[key].default)


def _ability_faults(spec: ValuedSpec, name: str, registry: Registry, path: Path) -> Iterator[Fault]:
    cls = registry.judges.get(name)
    if cls is None or issubclass(cls, AskedJudge):
        return
    if not compares_pairs(cls):
        yield Fault(path, f"{name} can neither score nor compare answers; name another judge")
    elif not scores_alone(cls) and (len(spec.judges) > 1 or by_of(spec, registry) == "score"):
        what = f"{name} compares answers and cannot score single ones; give `by: wins`"
        yield Fault(path, f"{what}, and no panel" if len(spec.judges) > 1 else what)


def _question_faults(spec: ValuedSpec, registry: Registry, path: Path) -> Iterator[Fault]:
    by = by_of(spec, registry)
    chosen = asked_of(spec, registry)
    place = (*path, "questions", "name") if spec.questions else (*path, "judge")
    yield from plugin_faults(registry, "benchmark", chosen.name, place, chosen.with_)
    cls = registry.benchmarks.get(chosen.name)
    if cls is None:
        return
    if not issubclass(cls, JudgedBenchmark):
        what = f"{chosen.name} asks no judge; name a benchmark that leaves the judge open"
        yield Fault(place, what)
    elif cls.compares != (by == "wins"):
        asks = "compares two answers" if cls.compares else "grades single answers"
        other = "wins" if cls.compares else "score"
        yield Fault(place, f"{chosen.name} {asks}, which is `by: {other}`, not `by: {by}`")


def _price_faults(spec: ValuedSpec, registry: Registry, path: Path) -> Iterator[Fault]:
    """A limit that nobody could keep."""
    for judge in spec.judges if spec.max_cost is not None else ():
        built, _ = try_options(registry.judges[judge.name], judge.with_)
        if isinstance(built, AskedJudge) and built.cost(Usage(1, 1)) is None:
            what = f"{judge.name} has no price, so nothing can be kept below a limit; give its "
            what += f"options prices (`alignzoo show {judge.name}`), or take this out"
            yield Fault((*path, "max_cost"), what, at_key=True)
        elif isinstance(built, AskedJudge) and _is_endless(built):
            what = f"nothing limits the tokens of a reply of {judge.name}, so that it may cost any "
            what += "sum; let its options limit them, or take this out"
            yield Fault((*path, "max_cost"), what, at_key=True)


def _is_endless(judge: AskedJudge) -> bool:
    """Whether a reply to even the shortest question may have a price without bound."""
    shortest = Question("", 0, (), ({"role": "user", "content": ""},), Decoding(max_tokens=1))
    most = judge.largest_usage(shortest)
    return most.completion_tokens >= sys.maxsize and judge.cost(Usage(0, 1)) != 0


def reward_faults(rollout: RolloutSpec, registry: Registry) -> Iterator[Fault]:
    """Faults of a rollout's rewards, beyond those of the models they name."""
    for part, path in placed_rewards(rollout.reward):
        yield from valued_faults(part, registry, path)
        yield from _lone_faults(part, rollout.samples_per_prompt, registry, path)
        key = next(filter(partial(_is_set, part), OF_JUDGES), None)
        if key is not None and not part.judges:
            yield Fault((*path, key), "is for judges; a reward model takes none", at_key=True)
    yield from _weight_faults(rollout.reward)


def _lone_faults(part: RewardSpec, answers: int, registry: Registry, path: Path) -> Iterator[Fault]:
    known = part.judges and all(judge.name in registry.judges for judge in part.judges)
    if known and answers < 2 and by_of(part, registry) == "wins":
        what = "win rates are among the answers to a prompt, and there is one; sample 2 or more "
        what += "(rollout.samples_per_prompt), or give `by: score`"
        yield Fault((*path, "judge"), what)


def wins_faults(spec: TrainSpec, cls: type[Algorithm[Any]], registry: Registry) -> Iterator[Fault]:
    """A method that reads shares of wins and gets scores, or the other way round."""
    reward = spec.rollout.reward if spec.rollout else None
    algorithm, _ = try_options(cls, spec.with_)
    if reward is None or algorithm is None or algorithm.takes_wins is None:
        return
    named = (judge.name for part in reward.sources for judge in part.judges)
    if any(name not in registry.judges for name in named):
        return
    wins = are_wins(reward, registry)
    if wins and not algorithm.takes_wins:
        what = f"{cls.name} with these options reads scores, and win rates are none; give "
        yield Fault(("rollout", "reward"), what + "`by: score`, or other options")
    if algorithm.takes_wins and not wins:
        what = f"{cls.name} with these options reads shares of wins, and these are scores; give "
        yield Fault(("rollout", "reward"), what + "one reward with `by: wins`, or other options")


def _weight_faults(reward: RewardSpec | None) -> Iterator[Fault]:
    if reward is None:
        return
    path: Path = ("rollout", "reward")
    if reward.parts is None and reward.weight != 1:
        what = "counts in a list of rewards alone; remove it"
        yield Fault((*path, "weight"), what, at_key=True)
    if reward.parts is not None and not any(part.weight for part in reward.parts):
        yield Fault(path, "every weight is 0, so that every answer would earn 0")
