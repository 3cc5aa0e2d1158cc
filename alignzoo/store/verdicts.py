"""What judges said in a stage, kept with it, and whether that is enough for who wants it.

What a recipe asks of verdicts (`min_parsed`, `other_models: stop`) changes no value, so it is no
part of a stage's identity: one that goes on after a change keeps what it has. A finished stage is
held against what the recipe asks now. (An evaluation's identity has all of its block.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from alignzoo.contract.evaluation import Judge
from alignzoo.contract.verdicts import AskedJudge
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.rewards import ValuedSpec, numbered
from alignzoo.recipe.spec import JudgeSpec, Spec
from alignzoo.store.files import read_json, write_json

VERDICTS = "verdicts.json"
JUDGES = "judges"  # the place of a block; a reward's blocks are numbered


@dataclass(frozen=True)
class Said:
    """What the judges of a block said."""

    judged: int  # questions
    parsed: int  # of them: with a verdict
    least: float  # the smallest share with a verdict of all questions up to any call
    strangers: tuple[str, ...] = ()  # judges in whose place another model replied


@dataclass(frozen=True)
class Bar:
    """What the recipe asks of the same."""

    min_parsed: float
    strict: frozenset[str]  # judges in whose place no other model may reply


def keep_verdicts(folder: Path, place: str, said: Said) -> None:
    """Write beside the work what the judges of a block said."""
    write_json(folder / VERDICTS, {**read_json(folder / VERDICTS), place: asdict(said)})


def lacks_verdicts(folder: Path) -> bool:
    """Whether judges left questions without a verdict."""
    counts = read_json(folder / "scores.json").get("row", {}).get("counts", {})
    kept = read_json(folder / VERDICTS).values()
    return bool(counts.get("failed")) or any(x["parsed"] < x["judged"] for x in kept)


def are_enough(folder: Path, bars: Mapping[str, Bar]) -> bool:
    """Whether work with these verdicts would have come to its end under these bars."""
    kept = read_json(folder / VERDICTS)
    return not any(
        kept[place]["least"] < bar.min_parsed or bar.strict & set(kept[place]["strangers"])
        for place, bar in bars.items()
        if place in kept
    )


def place_of(number: int) -> str:
    """The place of one of a reward's blocks."""
    return f"{JUDGES}-{number}"


def bars_of(spec: Spec, registry: Registry) -> dict[str, Bar]:
    """What a stage's block asks of verdicts, by place."""
    return {
        place: Bar(block.min_parsed, frozenset(_strict(block.judges, registry)))
        for place, block in _placed(spec)
    }


def _placed(spec: Spec) -> Iterator[tuple[str, ValuedSpec]]:
    if isinstance(spec, ValuedSpec):
        yield JUDGES, spec
    elif isinstance(spec, TrainSpec) and spec.rollout and spec.rollout.reward:
        yield from ((place_of(k), part) for k, part in enumerate(spec.rollout.reward.sources))


def _strict(judges: tuple[JudgeSpec, ...], registry: Registry) -> Iterator[str]:
    for name, given in zip(numbered([judge.name for judge in judges]), judges, strict=True):
        judge: Judge = build_options(registry.find("judge", given.name), given.with_)
        if isinstance(judge, AskedJudge) and judge.other_models == "stop":
            yield name
