"""What a study will measure in a world, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import Registry
from alignzoo.studies.places import measured_at, trained_at
from alignzoo.studies.spec import ClaimSpec, Study


def rows_of(
    study: Study, world: str, recipes: Sequence[Recipe], registry: Registry
) -> Iterator[tuple[str, ...]]:
    """A row of the study, and for each measure where it comes from; empty: not measured."""
    for row in study.row_names:
        cells = [source(study, world, row, m, recipes, registry) for m in study.measures]
        control = " (control)" if row in study.controls else ""
        yield (row + control, *cells)


def source(
    study: Study,
    world: str,
    row: str,
    measure: str,
    recipes: Sequence[Recipe],
    registry: Registry,
) -> str:
    """Where a figure comes from, as RECIPE/MODEL: COLUMN; empty where nothing gives it."""
    target = study.target(world, row)
    if target is None:
        return ""
    derived = study.derived.get(measure)
    if derived is not None:
        index = trained_at(target, recipes)
        what = f"{derived.fold} {derived.metric}".strip()
        return "" if index is None else f"{recipes[index].name}/{target.model}: {what}"
    column = study.worlds[world].measures.get(measure)
    place = column and measured_at(target, column, recipes, registry)
    return (
        f"{recipes[place.recipe].name}/{place.model}: {column.column}" if column and place else ""
    )


def claims_of(
    study: Study, world: str, recipes: Sequence[Recipe], registry: Registry
) -> Iterator[tuple[str, str]]:
    """Every claim, and why this world cannot test it; an empty text where it can."""
    for claim in study.claims:
        yield claim.says, untestable(study, world, claim, recipes, registry)


def untestable(
    study: Study, world: str, claim: ClaimSpec, recipes: Sequence[Recipe], registry: Registry
) -> str:
    """Why a world cannot test a claim, or an empty text."""
    known = claim.measure in study.worlds[world].measures or claim.measure in study.derived
    if not known:
        return f"{study.measures[claim.measure].label} is not measured here"
    lost = [
        row
        for row in claim.named_rows
        if not source(study, world, row, claim.measure, recipes, registry)
    ]
    return f"no {study.measures[claim.measure].label} of {', '.join(lost)} here" if lost else ""
