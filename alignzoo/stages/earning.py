"""What a sampled response earns: by scalar heads, by judges that value it themselves or are asked.

A reward may be a weighted sum: r = sum_j weight_j r_j, each r_j logged as `reward/NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import Interrupted
from alignzoo.contract.evaluation import Answer, Judge
from alignzoo.contract.rollout import Completion
from alignzoo.contract.types import Tokens
from alignzoo.contract.verdicts import JudgeError
from alignzoo.engine.models.bounds import bounds_of
from alignzoo.engine.models.fit import check_end
from alignzoo.engine.models.hooked import Listener
from alignzoo.engine.models.load import load_model, pad_id_of
from alignzoo.engine.parallel.exchange import as_one, everyone
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.scoring.measure import sequence_values
from alignzoo.engine.train.sources import Earned, Reward
from alignzoo.judging.comparing import ranked
from alignzoo.judging.ranking import EQUAL, filled
from alignzoo.recipe.judges import by_of, is_worded
from alignzoo.recipe.options import build_options
from alignzoo.recipe.rewards import RewardSpec
from alignzoo.stages.context import StageContext
from alignzoo.stages.label import judged
from alignzoo.stages.rereading import check_context, rereader_for
from alignzoo.stages.tasks import Task
from alignzoo.stages.valuing import Valued, Valuer, grouped, valuer_of
from alignzoo.store.verdicts import place_of

UNJUDGED, COST = "rollout/unjudged", "rollout/judging_cost"
Asking = Callable[[Sequence[int], Sequence[Completion]], Earned]
Groups = Sequence[Sequence[Answer]]


def nothing(index: int = 0) -> None:
    """Of rewards that hold nothing, whichever buffer comes."""


@dataclass(frozen=True)
class Earning:
    """A reward, how it is told the number of a buffer, and how it gives back what it holds."""

    reward: Reward
    begin: Callable[[int], None] = nothing
    close: Callable[[], None] = nothing


def earning_of(spec: RewardSpec, answers: int, task: Task, context: StageContext) -> Earning:
    """The reward of a rollout with so many answers to a prompt.

    Raises JudgeError when a judge that is asked cannot be used, DataError when a reward model
    cannot.
    """
    desk = Desk(task, context)
    found = [_part(part, answers, desk, place_of(k)) for k, part in enumerate(spec.sources)]
    if spec.parts is None:
        return found[0]
    weights = dict(zip(spec.names, (part.weight for part in spec.parts), strict=True))
    return Earning(
        partial(_summed, weights, [one.reward for one in found]),
        lambda index: _all([partial(one.begin, index) for one in found]),
        partial(_all, [one.close for one in found]),
    )


def _all(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _summed(
    weights: Mapping[str, float],
    rewards: Sequence[Reward],
    numbers: Sequence[int],
    done: Sequence[Completion],
) -> Earned:
    """R = sum_j weight_j r_j."""
    values = [0.0] * len(done)
    shown: dict[str, Sequence[float]] = {}
    totals: dict[str, float] = {}
    for (name, weight), reward in zip(weights.items(), rewards, strict=True):
        found = reward(numbers, done)
        earned = found if isinstance(found, Earned) else Earned(found)
        values = [x + weight * y for x, y in zip(values, earned.values, strict=True)]
        shown[f"reward/{name}"] = earned.values
        shown |= {_of(key, name): x for key, x in earned.shown.items()}
        totals |= {_of(key, name): x for key, x in earned.totals.items()}
    return Earned(values, shown, totals)


def _of(metric: str, name: str) -> str:
    """A metric of one part of a sum."""
    return f"{metric}/{name}"


@dataclass(frozen=True)
class Desk:
    """What the parts of a reward share."""

    task: Task
    context: StageContext
    valuers: list[Valuer] = field(default_factory=list)  # of its parts, on the rank that asks


def _part(spec: RewardSpec, answers: int, desk: Desk, place: str) -> Earning:
    task, context = desk.task, desk.context
    if spec.model is not None:
        return Earning(_from_model(spec, task, context))
    if is_worded(spec, context.registry):
        return _from_asked(spec, answers, desk, place)
    return Earning(_from_judge(spec, answers, task, context))


def _from_judge(spec: RewardSpec, size: int, task: Task, context: StageContext) -> Reward:
    """By a judge that values answers itself; every rank asks it about its own."""
    (chosen,) = spec.judges
    judge: Judge = build_options(context.registry.find("judge", chosen.name), chosen.with_)
    wins = by_of(spec, context.registry) == "wins"

    def reward(numbers: Sequence[int], done: Sequence[Completion]) -> Sequence[float]:
        answers = [task.answer(n, c) for n, c in zip(numbers, done, strict=True)]
        if not wins:
            return judged(judge, answers) if answers else []
        values = filled(ranked(judge, grouped(answers, size))) or []
        return [x for group in values for x in group]

    return reward


# --- judges that are asked -------------------------------------------------------------------


@dataclass(frozen=True)
class Stopped:
    """Why the rank that asks ends the work of all."""

    why: str = ""
    signal: int = 0


def _from_asked(spec: RewardSpec, size: int, desk: Desk, place: str) -> Earning:
    """One rank asks about the answers of all, and all get the same values."""
    valuers: list[Valuer] = []
    task, context, crew = desk.task, desk.context, everyone()

    def start() -> None:
        valuers.append(valuer_of(spec, context, place, desk.valuers))
        desk.valuers.extend(valuers)

    as_one(lambda: crew.from_main(start))

    def reward(numbers: Sequence[int], done: Sequence[Completion]) -> Earned:
        answers = [task.answer(n, c) for n, c in zip(numbers, done, strict=True)]
        mine = grouped(answers, size)

        def work() -> tuple[int, Valued | Stopped]:
            every = crew.gathered(mine)
            whole = [group for groups in every for group in groups]
            before = sum(map(len, every[: crew.rank]))
            return before, crew.from_main(lambda: _asked(valuers[0], whole))

        before, found = as_one(work)
        if isinstance(found, Stopped):
            raise Interrupted(found.signal) if found.signal else JudgeError(found.why)
        return _earned(found, slice(before, before + len(mine)), context.name)

    def begin(index: int) -> None:
        for valuer in valuers:
            valuer.number = index

    return Earning(reward, begin, lambda: _all([valuer.close for valuer in valuers]))


def _asked(valuer: Valuer, groups: Groups) -> Valued | Stopped:
    """What stops the asking stops the training on every rank, with the same words."""
    try:
        return valuer(groups)
    except JudgeError as error:
        return Stopped(str(error))
    except Interrupted as stop:
        return Stopped(signal=stop.number)


def _earned(found: Valued, mine: slice, stage: str) -> Earned:
    """An answer without a verdict earns the mean of the others to its prompt, else of all, so that
    it speaks neither for nor against itself; how many there are is logged.
    """
    values = filled(found.values, EQUAL if found.wins else None)
    if values is None and found.usual is None:
        raise JudgeError(
            f"{stage}: no answer of a whole buffer has a verdict, so that nothing says what any "
            "earns; every reply is kept, `alignzoo run --rejudge-failed` asks again, and with "
            f"`{found.bar}` they earn alike"
        )
    if values is None:
        values = [[found.usual or 0.0] * len(group) for group in found.values]
    given = [x for group in found.values[mine] for x in group]
    unjudged = [float(x is None) for x in given]
    cost = {} if found.total.cost is None else {COST: found.total.cost}
    return Earned([x for group in values[mine] for x in group], {UNJUDGED: unjudged}, cost)


# --- reward models ---------------------------------------------------------------------------


def _from_model(spec: RewardSpec, task: Task, context: StageContext) -> Reward:
    ref = context.model(spec.model)
    listener = Listener(lambda model: context.note_unstated(ref), context.note)
    model = load_model(context.registry.hooks, ref, Role(head="scalar"), listener=listener)
    model.to(start_ranks(context.recipe.precision).device)  # type: ignore[arg-type]
    own = task.reader.tokenizer
    other = rereader_for(ref, own, task.samples, bounds_of(model), task.reader.rules, context)
    tokenizer = other.tokenizer if other else own
    check_end(model, tokenizer, ref.name)

    def row(number: int, done: Completion) -> Tokens:
        if other is None:
            return Tokens(task.prompts[number], done.ids)
        return other.row(number, task.answer(number, done))

    def reward(numbers: Sequence[int], done: Sequence[Completion]) -> Sequence[float]:
        if not done:
            return []
        rows = [row(n, c) for n, c in zip(numbers, done, strict=True)]
        check_context(model, rows, ref.name)
        with context.arithmetic():
            return sequence_values(model, rows, pad_id_of(tokenizer))

    return reward
