"""`alignzoo run --sweep KEY=A,B`: a run for every value, and one leaderboard of them all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from alignzoo.cli.doing.running import Asked, finished_runs, run_command
from alignzoo.cli.terminal.names import check_folder_of_runs, find_recipe
from alignzoo.cli.terminal.screen import width
from alignzoo.contract.errors import UsageError
from alignzoo.engine.parallel.agreement import is_main
from alignzoo.leaderboard import read_leaderboard, render_markdown, render_text
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.store.files import digest_of_value, write_text
from alignzoo.store.folders import LONGEST, default_folder

OPENING, CLOSING = "[{", "]}"


@dataclass(frozen=True)
class Point:
    """One choice of all values."""

    name: str  # of its folder, and in the leaderboard
    overrides: tuple[str, ...]


def points_of(sweeps: Sequence[str]) -> list[Point]:
    """Every combination, the last key changing fastest.

    Raises UsageError for a sweep that is no KEY=A,B, or that would do the same work twice.
    """
    axes = [_axis(text) for text in sweeps]
    twice = [key for key, n in Counter(key for key, _ in axes).items() if n > 1]
    if twice:
        raise UsageError(f"--sweep {twice[0]}: given twice; name all its values in one")
    names = _short([key for key, _ in axes])
    found = []
    for values in product(*(values for _, values in axes)):
        pairs = list(zip(axes, names, values, strict=True))
        overrides = tuple(f"{key}={value}" for (key, _), _, value in pairs)
        found.append(Point(_folder(",".join(f"{n}={v}" for _, n, v in pairs)), overrides))
    return found


def sweep_recipes(asked: Asked) -> list[tuple[Point, Recipe]]:
    """The recipe of every combination; what is wrong with one is known before any is run."""
    path, registry = find_recipe(asked.recipe), load_plugins()
    _check_set(asked)
    found: list[tuple[Point, Recipe]] = []
    for point in points_of(asked.sweep):
        recipe = load_recipe(path, registry, (*asked.overrides, *point.overrides))
        if same := [other.name for other, known in found if known == recipe]:
            raise UsageError(f"--sweep: {same[0]} and {point.name} are one recipe; leave one out")
        found.append((point, recipe))
    return found


def sweep_folder(asked: Asked, recipes: Sequence[tuple[Point, Recipe]]) -> Path:
    """Where the folders of all combinations lie."""
    if asked.output is not None:
        return asked.output
    registry = load_plugins()
    every = [default_folder(recipe, registry).name for _, recipe in recipes]
    return Path("runs") / f"{recipes[0][1].name}-sweep-{digest_of_value(every)[:8]}"


def sweep_command(asked: Asked) -> int:
    """Run every combination, then print one leaderboard; the exit status.

    Stages that combinations share are taken from the first that made them.
    """
    if asked.fresh or asked.seeds > 1:
        raise UsageError(
            "--sweep goes with neither --fresh (name another --output) nor --seeds (sweep the "
            "seed: --sweep seed=0,1,2)"
        )
    recipes = sweep_recipes(asked)
    folder = sweep_folder(asked, recipes)
    check_folder_of_runs(folder, "--sweep")
    places = []
    for number, (point, _) in enumerate(recipes, 1):
        place = folder / point.name
        if is_main():
            print(f"sweep {number} of {len(recipes)}: {point.name}")
        words = (*asked.overrides, *point.overrides)
        status = run_command(replace(asked, overrides=words, output=place, sweep=()))
        if status:
            return status
        places.append(place)
    if is_main() and recipes[0][1].evaluate:
        sections = read_leaderboard(finished_runs(places))
        write_text(folder / "leaderboard.md", render_markdown(sections))
        print("\n" + render_text(sections, width()))
    if is_main():
        print(f"sweep: {folder}")
    return 0


def _check_set(asked: Asked) -> None:
    """Refuse what --set says of a key whose values are swept: it would be lost in every run."""
    swept = [key for key, _ in (_axis(text) for text in asked.sweep)]
    for pair in asked.overrides:
        key = pair.partition("=")[0].strip()
        if lost := [own for own in swept if key == own or key.startswith(f"{own}.")]:
            raise UsageError(
                f"--set {key}: --sweep {lost[0]} sets it in every run; take one of them out"
            )


def _axis(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    parts = [part.strip() for part in _parts(values)]
    if not equals or not key.strip(". ") or not all(parts):
        raise UsageError(f"--sweep {text}: write it as key.path=VALUE,VALUE")
    again = [part for part, n in Counter(parts).items() if n > 1]
    if again:
        raise UsageError(f"--sweep {text}: {again[0]} is there twice")
    return key.strip(), parts


def _parts(text: str) -> Iterator[str]:
    """What stands between commas that are inside no brackets."""
    depth, start = 0, 0
    for at, letter in enumerate(text):
        depth += (letter in OPENING) - (letter in CLOSING)
        if letter == "," and depth == 0:
            yield text[start:at]
            start = at + 1
    yield text[start:]


def _short(keys: Sequence[str]) -> list[str]:
    """The last words of every key, as few as tell it from the others."""
    words = [key.split(".") for key in keys]
    for length in range(1, max(map(len, words)) + 1):
        names = [".".join(word[-length:]) for word in words]
        if len(set(names)) == len(names):
            return names
    return list(keys)


def _folder(name: str) -> str:
    """As the name of a folder; one that had to change gets a digest, so no two are the same."""
    clean = re.sub(r"[^A-Za-z0-9._=,+-]", "-", name)[:LONGEST]
    return clean if clean == name else f"{clean}-{digest_of_value(name)[:6]}"
