"""The file of a study -> a checked Study with its recipes, or every problem of it at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import suggest
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.faults import Fault, validate
from alignzoo.recipe.faults import Path as Place
from alignzoo.recipe.file import block_of, load_recipe
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.text import read_source
from alignzoo.studies.places import Unclear, blocks_for, is_known, measured_at, names_of
from alignzoo.studies.spec import ClaimSpec, Study, WorldSpec


@dataclass(frozen=True)
class Opened:
    """A study, and the files of its recipes by world."""

    path: Path
    study: Study
    recipes: Mapping[str, tuple[Path, ...]]


def load_study(path: Path, registry: Registry, bundled: Path) -> Opened:
    """The study in a YAML file, checked with the recipes that it names.

    Recipes are looked for beside the study, then in the folder of bundled ones. Raises RecipeError
    with every problem of the file, else with those of the first recipe that has any.
    """
    source = read_source(path)
    study, faults = validate(Study, source.data, block_of(Study, "a study"))
    if study is None or source.problems:
        raise source.error(faults)
    files, lost = _files(study, (path.parent, bundled))
    if found := [*_word_faults(study), *lost]:
        raise source.error(found)
    for world in study.worlds:
        recipes = [load_recipe(file, registry) for file in files[world]]
        faults = tuple(_world_faults(study, world, recipes, registry))
        if faults:
            raise source.error(faults)
    return Opened(path, study, files)


def recipes_of(
    opened: Opened, world: str, registry: Registry, overrides: Sequence[str] = ()
) -> tuple[Recipe, ...]:
    """The recipes of a world, changed by `key.path=value` words.

    Raises RecipeError for a word that none of them takes, and where a change leaves a row unclear.
    """
    recipes = tuple(load_recipe(path, registry, overrides) for path in opened.recipes[world])
    if faults := list(_world_faults(opened.study, world, recipes, registry)):
        raise read_source(opened.path).error(faults)
    return recipes


def _files(
    study: Study, folders: Sequence[Path]
) -> tuple[dict[str, tuple[Path, ...]], list[Fault]]:
    """The recipes' files by world, and those that are not there."""
    files, faults = {}, []
    for name, world in study.worlds.items():
        found = []
        for index, text in enumerate(world.recipes):
            here = [folder / text for folder in folders if (folder / text).is_file()]
            found += here[:1]
            if not here:
                known = [
                    path.relative_to(folder).as_posix()
                    for folder in folders
                    for path in sorted(folder.rglob("*.yaml"))
                ]
                where = " nor ".join(map(str, folders))
                what = f"no such file '{text}', neither in {where}{suggest(text, known)}"
                faults.append(Fault(("worlds", name, "recipes", index), what))
        files[name] = tuple(found)
    return files, faults


# --- words that must name something of the study -----------------------------------------------


def _word_faults(study: Study) -> Iterator[Fault]:
    yield from _in_rows(study)
    for index, claim in enumerate(study.claims):
        yield from _in_claim(study, claim, ("claims", index))
    for name, world in study.worlds.items():
        yield from _of_world(study, name, world)


def _in_rows(study: Study) -> Iterator[Fault]:
    """Rows and measures that the study's own words do not know."""
    rows, measures = study.row_names, tuple(study.measures)
    for index, row in enumerate(study.rows):
        if rows.index(row.row) != index:
            yield Fault(("rows", index, "row"), f"'{row.row}' is there twice; rename one of them")
        yield from _unknown(row.paper, measures, "measure", ("rows", index, "paper"))
    yield from _unknown(study.paper_measures, measures, "measure", ("paper_measures",))
    yield from _unknown(study.derived, measures, "measure", ("derived",))
    yield from _listed(study.controls, rows, ("controls",))
    for index, curve in enumerate(study.curves):
        yield from _listed(curve.rows, rows, ("curves", index, "rows"))
    for name, derived in study.derived.items():
        if derived.of is not None and derived.of not in rows:
            yield Fault(("derived", name, "of"), _no("row", derived.of, rows))


def _in_claim(study: Study, claim: ClaimSpec, place: Place) -> Iterator[Fault]:
    measures, rows = tuple(study.measures), study.row_names
    if claim.measure not in measures:
        yield Fault((*place, "measure"), _no("measure", claim.measure, measures))
    for name in claim.named_rows:
        if name not in rows:
            yield Fault(place, _no("row", name, rows))


def _of_world(study: Study, name: str, world: WorldSpec) -> Iterator[Fault]:
    place = ("worlds", name)
    yield from _unknown(world.rows, study.row_names, "row", (*place, "rows"))
    yield from _unknown(world.measures, tuple(study.measures), "measure", (*place, "measures"))
    for measure in world.measures:
        if measure in study.derived:
            what = f"'{measure}' is derived from a logged metric; it cannot be a column as well"
            yield Fault((*place, "measures", measure), what, at_key=True)


def _unknown(
    given: Mapping[str, Any], known: Sequence[str], noun: str, place: Place
) -> Iterator[Fault]:
    for key in given:
        if key not in known:
            yield Fault((*place, key), _no(noun, key, known), at_key=True)


def _listed(given: Iterable[str], known: Sequence[str], place: Place) -> Iterator[Fault]:
    for index, row in enumerate(given):
        if row not in known:
            yield Fault((*place, index), _no("row", row, known))


def _no(noun: str, word: str, known: Sequence[str]) -> str:
    return f"no {noun} '{word}'{suggest(word, known)} (the study has: {', '.join(known)})"


# --- words that must name something of a recipe ------------------------------------------------


def _world_faults(
    study: Study, world: str, recipes: Sequence[Recipe], registry: Registry
) -> Iterator[Fault]:
    spec, names = study.worlds[world], [recipe.name for recipe in recipes]
    for index, name in enumerate(names):
        if names.index(name) != index:
            what = f"two recipes are named '{name}', and their runs would lie in one folder"
            yield Fault(("worlds", world, "recipes", index), what)
    for row in study.row_names:
        yield from _row_faults(study, world, row, recipes, registry)
    for measure, column in spec.measures.items():
        place = ("worlds", world, "measures", measure)
        blocks = blocks_for(column, recipes)
        if not blocks:
            there = ", ".join(dict.fromkeys(b.benchmark for r in recipes for b in r.evaluate))
            what = f"no evaluation of its recipes fits (benchmarks there: {there or 'none'})"
            yield Fault(place, what)
        elif column.column.startswith("kl("):
            known = list(dict.fromkeys(f"kl({m})" for block in blocks for m in block.kl_to))
            if column.column not in known:
                near = suggest(column.column, known)
                there = f"there are: {', '.join(known)}" if known else "none has kl_to"
                what = f"no evaluation measures {column.column}{near} ({there})"
                yield Fault(place, what)


def _row_faults(
    study: Study, world: str, row: str, recipes: Sequence[Recipe], registry: Registry
) -> Iterator[Fault]:
    spec = study.worlds[world]
    target = study.target(world, row)
    place = ("worlds", world, "rows", row) if row in spec.rows else ("worlds", world, "rows")
    if target is None:
        return
    names = [recipe.name for recipe in recipes]
    if target.recipe is not None and target.recipe not in names:
        near = suggest(target.recipe, names)
        what = f"no recipe '{target.recipe}'{near} (it has: {', '.join(names)})"
        yield Fault((*place, "recipe"), what)
        return
    if not is_known(target, recipes, registry):
        known = list(dict.fromkeys(n for r in recipes for n in names_of(r, registry)))
        remedy = f"; map the row, or say '{row}: null' for none" if row not in spec.rows else ""
        what = f"row '{row}': no model '{target.model}'{suggest(target.model, known)}{remedy}"
        yield Fault(place, f"{what} (the recipes have: {', '.join(known)})")
        return
    for measure, column in spec.measures.items():
        try:
            measured_at(target, column, recipes, registry)
        except Unclear as error:
            yield Fault(place, f"row '{row}', {measure}: {error}")
