"""Where the rows of a study lie in its recipes: which evaluation, which training stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.recipe.blocks import EvaluateSpec, Recipe, TrainSpec
from alignzoo.recipe.registry import Registry
from alignzoo.store.inputs import descent, evaluated_models
from alignzoo.studies.spec import ColumnSpec, TargetSpec


class Unclear(ValueError):
    """Several places could be meant; the message says which, and how to name one."""


@dataclass(frozen=True)
class Place:
    """A model in an evaluation of a recipe; both are counted from 0."""

    recipe: int
    evaluation: int
    model: str


def measured_at(
    target: TargetSpec, column: ColumnSpec, recipes: Sequence[Recipe], registry: Registry
) -> Place | None:
    """Where a row's column is measured; None where it is not.

    A model that several recipes make in the same way is taken from the first of them. Raises
    Unclear where two evaluations of a recipe fit, or recipes make a model of that name differently.
    """
    found: list[Place] = []
    for index, recipe in _meant(target, recipes):
        here = [
            Place(index, n, target.model)
            for n, block in enumerate(recipe.evaluate)
            if _fits(block, target, column)
            and target.model in evaluated_models(block, recipe, registry)
        ]
        if len(here) > 1:
            numbers = " and ".join(str(place.evaluation + 1) for place in here)
            raise Unclear(
                f"evaluations {numbers} of recipe '{recipe.name}' both measure '{target.model}'; "
                "tell them apart by benchmark, with or baseline"
            )
        found += here
    _agree(target, [place.recipe for place in found], recipes)
    return found[0] if found else None


def trained_at(target: TargetSpec, recipes: Sequence[Recipe]) -> int | None:
    """The recipe with the stage that trains a row; None where none does. Raises Unclear."""
    found = [
        index
        for index, recipe in _meant(target, recipes)
        if any(s.name == target.model and isinstance(s, TrainSpec) for s in recipe.stages)
    ]
    _agree(target, found, recipes)
    return found[0] if found else None


def is_known(target: TargetSpec, recipes: Sequence[Recipe], registry: Registry) -> bool:
    """Whether some recipe makes or measures a row."""
    return any(target.model in names_of(recipe, registry) for _, recipe in _meant(target, recipes))


def names_of(recipe: Recipe, registry: Registry) -> list[str]:
    """What a row may name in a recipe: its stages, and the models that it evaluates."""
    measured = [m for block in recipe.evaluate for m in evaluated_models(block, recipe, registry)]
    return list(dict.fromkeys([*(stage.name for stage in recipe.stages), *measured]))


def blocks_for(column: ColumnSpec, recipes: Sequence[Recipe]) -> list[EvaluateSpec]:
    """The evaluations in which a column may stand."""
    every = [block for recipe in recipes for block in recipe.evaluate]
    return [block for block in every if _fits(block, TargetSpec(model=""), column)]


def _meant(target: TargetSpec, recipes: Sequence[Recipe]) -> Iterator[tuple[int, Recipe]]:
    for index, recipe in enumerate(recipes):
        if target.recipe in (None, recipe.name):
            yield index, recipe


def _fits(block: EvaluateSpec, target: TargetSpec, column: ColumnSpec) -> bool:
    named = column.benchmark in (None, block.benchmark)
    against = column.baseline in (None, block.baseline)
    judged = target.judge is None or target.judge in [judge.name for judge in block.judge]
    return named and against and judged and _within({**column.with_, **target.with_}, block.with_)


def _within(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return all(key in given and given[key] == value for key, value in wanted.items())


def _agree(target: TargetSpec, places: Sequence[int], recipes: Sequence[Recipe]) -> None:
    """Raise Unclear where recipes make different models under one name."""
    made = {index: _making(target.model, recipes[index]) for index in places}
    first = next(iter(made), None)
    others = [index for index, steps in made.items() if steps != made[first or 0]]
    if first is not None and others:
        names = f"'{recipes[first].name}' and '{recipes[others[0]].name}'"
        raise Unclear(
            f"recipes {names} make '{target.model}' differently; say which one is meant: "
            f"{{model: {target.model}, recipe: {recipes[first].name}}}"
        )


def _making(model: str, recipe: Recipe) -> list[Any]:
    """All that a model is made by."""
    if model not in [stage.name for stage in recipe.stages]:
        return [recipe.model, recipe.precision]
    steps = set(descent(model, recipe))
    return [recipe.model, recipe.precision, *(s for s in recipe.stages if s.name in steps)]
