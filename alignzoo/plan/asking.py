"""How often judges would be asked in words while a recipe trains and labels."""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.contract.verdicts import AskedJudge
from alignzoo.recipe.blocks import GenerateSpec, Recipe, StageSpec, TrainSpec
from alignzoo.recipe.judges import by_of, placed_values
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.rewards import ValuedSpec, numbered


def asking_notes(recipe: Recipe, registry: Registry) -> Iterator[str]:
    """A sentence for every stage whose judges are asked, and what limits the price.

    Fewer questions are asked where answers are equal; another benchmark than usual may ask more.
    """
    for stage in recipe.stages:
        for block, _ in placed_values(stage):
            called = zip(numbered([x.name for x in block.judges]), block.judges, strict=True)
            names = [name for name, judge in called if _is_asked(judge.name, registry)]
            if names:
                limit = "no max_cost" if block.max_cost is None else f"max_cost {block.max_cost:g}"
                often = _often(stage, block, recipe, registry)
                whom = f"each of {' and '.join(names)}" if names[1:] else f"judge {names[0]}"
                yield f"{stage.name}: {often} to {whom}; {limit}"


def _is_asked(name: str, registry: Registry) -> bool:
    return issubclass(registry.judges[name], AskedJudge)


def _often(stage: StageSpec, block: ValuedSpec, recipe: Recipe, registry: Registry) -> str:
    k = _answers(stage, recipe)
    wins = by_of(block, registry) == "wins"
    if k is None:
        return f"a question for {'every two answers in both orders' if wins else 'every answer'}"
    each = k * (k - 1) if wins else k
    rollout = stage.rollout if isinstance(stage, TrainSpec) else None
    buffer = f", {each * rollout.prompts} for a buffer of {rollout.prompts}" if rollout else ""
    return f"{each} questions for a prompt with {k} answers{buffer}"


def _answers(stage: StageSpec, recipe: Recipe) -> int | None:
    """How many answers to a prompt are valued, where the recipe says it."""
    if isinstance(stage, TrainSpec):
        return stage.rollout.samples_per_prompt if stage.rollout else None
    name = getattr(getattr(stage, "data", None), "name", None)
    made = next((s for s in recipe.stages if s.name == name), None)
    return made.samples if isinstance(made, GenerateSpec) else None
