"""`alignzoo reproduce`: the recipes of a study over seeds, and what they say of its claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignzoo.cli.terminal.names import is_study, recipe_folder
from alignzoo.cli.terminal.screen import print_table
from alignzoo.contract.errors import UsageError, counted, suggest
from alignzoo.recipe.registry import Registry, load_plugins
from alignzoo.studies.file import Opened, load_study, recipes_of
from alignzoo.studies.preview import claims_of, rows_of

EVERY = "all"


@dataclass(frozen=True)
class Wish:
    """What `alignzoo reproduce` was asked to do."""

    worlds: tuple[str, ...] = ()
    check: bool = False


def reproduce_command(name: str | None, wish: Wish) -> int:
    """List studies, check them, or run them; the exit status."""
    registry = load_plugins()
    if name is None and not wish.check:
        list_studies(registry)
        return 0
    for path in find_studies(name or EVERY):
        opened = load_study(path, registry, recipe_folder())
        check_study(opened, registry, worlds_of(opened, wish.worlds))
    return 0


def bundled_studies() -> dict[str, Path]:
    """The studies that come with alignzoo, by name."""
    files = sorted((recipe_folder() / "studies").glob("*.yaml"))
    return {path.stem: path for path in files if is_study(path)}


def find_studies(name: str) -> list[Path]:
    """The files that a name stands for: a path, a bundled study, or all of these.

    Raises UsageError with a suggestion.
    """
    bundled = bundled_studies()
    if name == EVERY:
        return list(bundled.values())
    if name in bundled:
        return [bundled[name]]
    if Path(name).is_file():
        if not is_study(Path(name)):
            raise UsageError(f"{name}: no study (it has no `worlds:`); try `alignzoo run {name}`")
        return [Path(name)]
    hint = suggest(name, [*bundled, EVERY]) or f"; there are {', '.join([*bundled, EVERY])}"
    raise UsageError(f"no study '{name}': neither a file nor a bundled study{hint}")


def worlds_of(opened: Opened, wanted: Sequence[str]) -> list[str]:
    """The worlds that are asked for, else all; raises UsageError for one that is not there."""
    known = list(opened.study.worlds)
    for world in wanted:
        if world not in known:
            raise UsageError(
                f"--on {world}: study '{opened.study.name}' has {', '.join(known)}"
                f"{suggest(world, known)}"
            )
    return [world for world in known if not wanted or world in wanted]


def list_studies(registry: Registry) -> None:
    """Print the bundled studies: their worlds, seeds and cost."""
    rows = [
        row
        for path in bundled_studies().values()
        for row in _listed(load_study(path, registry, recipe_folder()))
    ]
    print_table(("study", "world", "seeds", "one seed costs", "needs", "about"), rows)


def _listed(opened: Opened) -> Iterator[tuple[str, ...]]:
    study = opened.study
    for name, world in study.worlds.items():
        yield (study.name, name, str(world.seeds), world.cost, world.needs, study.title)


def check_study(opened: Opened, registry: Registry, worlds: Sequence[str]) -> None:
    """Print where every row of a study is measured, and which claims a world can test."""
    study = opened.study
    for world in worlds:
        recipes = recipes_of(opened, world, registry)
        names = ", ".join(recipe.name for recipe in recipes)
        print(f"{study.name} on {world}: {counted(len(recipes), 'recipe')} ({names})")
        print_table(("row", *study.measures), [*rows_of(study, world, recipes, registry)])
        for says, why in claims_of(study, world, recipes, registry):
            print(f"  {'not tested here' if why else 'tested'}: {says}{f' ({why})' if why else ''}")
    print(f"{opened.path}: sound")
