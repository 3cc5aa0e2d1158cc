"""`alignzoo reproduce`: the recipes of a study over seeds, and what they say of its claims."""

from __future__ import annotations

import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import alignzoo
from alignzoo.cli.doing.running import (
    INTERRUPTED,
    Asked,
    plan_command,
    resume_hint,
    run_command,
)
from alignzoo.cli.terminal.names import is_study, recipe_folder
from alignzoo.cli.terminal.screen import print_table
from alignzoo.contract.errors import AlignzooError, Interrupted, UsageError, counted, suggest
from alignzoo.engine.parallel.agreement import is_main
from alignzoo.engine.parallel.exchange import as_one, everyone
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry, load_plugins
from alignzoo.store.code import core_digest
from alignzoo.store.files import digest_of_value
from alignzoo.store.presence import require_inputs
from alignzoo.studies.facts import Origin, Result
from alignzoo.studies.file import Opened, load_study, recipes_of
from alignzoo.studies.files import write_result
from alignzoo.studies.fold import fold_study
from alignzoo.studies.preview import claims_of, rows_of
from alignzoo.studies.runs import (
    SeedRuns,
    add_seconds,
    folder_of,
    recipe_digest,
    seeded,
    unfinished,
    versions_of,
)
from alignzoo.studies.spec import WorldSpec
from alignzoo.studies.words import counts, verdict_word

EVERY = "all"


@dataclass(frozen=True)
class Wish:
    """What `alignzoo reproduce` was asked to do."""

    worlds: tuple[str, ...] = ()
    seeds: int | None = None
    first_seed: int | None = None
    quick: bool = False
    changed: tuple[str, ...] = ()
    output: Path = Path("runs/reproduce")
    check: bool = False

    def numbers(self, world: WorldSpec) -> range:
        """The seeds that are asked for in a world; raises UsageError for two numbers of them."""
        if self.quick and self.seeds not in (None, 1):
            raise UsageError(f"--quick is one seed, --seeds {self.seeds} is not; leave one out")
        first = world.seed if self.first_seed is None else self.first_seed
        return range(first, first + (1 if self.quick else self.seeds or world.seeds))


def reproduce_command(name: str | None, wish: Wish) -> int:
    """List studies, check them, or run them; the exit status."""
    registry = load_plugins()
    if name is None and not wish.check:
        list_studies(registry)
        return 0
    studies = [load_study(path, registry, recipe_folder()) for path in find_studies(name or EVERY)]
    asked = [(one, worlds_of(one, wish.worlds, alone=len(studies) == 1)) for one in studies]
    if wish.worlds and not any(worlds for _, worlds in asked):
        raise UsageError(f"--on {wish.worlds[0]}: no study has this world")
    for opened, worlds in asked:
        if wish.check:
            check_study(opened, registry, worlds, wish.changed)
            continue
        for world in worlds:
            if status := _kept(opened, world, registry, wish):
                return status
    return 0


def _kept(opened: Opened, world: str, registry: Registry, wish: Wish) -> int:
    """`run_world`; Ctrl-C between two runs is told as one in a run is."""
    try:
        return run_world(opened, world, registry, wish)
    except KeyboardInterrupt as stop:
        print(f"\n{resume_hint(wish.output)}", file=sys.stderr)
        return stop.code if isinstance(stop, Interrupted) else INTERRUPTED


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


def worlds_of(opened: Opened, wanted: Sequence[str], *, alone: bool) -> list[str]:
    """The worlds that are asked for, else all; of a study that stands alone, UsageError for one
    that it does not have.
    """
    known = list(opened.study.worlds)
    for world in wanted:
        if alone and world not in known:
            raise UsageError(
                f"--on {world}: study '{opened.study.name}' has {', '.join(known)}"
                f"{suggest(world, known)}"
            )
    return [world for world in known if not wanted or world in wanted]


def list_studies(registry: Registry) -> None:
    """Print the bundled studies: their worlds, seeds and cost."""
    studies = [load_study(path, registry, recipe_folder()) for path in bundled_studies().values()]
    rows = [row for opened in studies for row in _listed(opened)]
    print_table(("study", "world", "seeds", "one seed costs", "needs", "about"), rows)
    print("\n`alignzoo reproduce STUDY --on WORLD --quick` runs one with one seed")


def _listed(opened: Opened) -> Iterator[tuple[str, ...]]:
    study = opened.study
    for name, world in study.worlds.items():
        yield (study.name, name, str(world.seeds), world.cost, world.needs, study.title)


def check_study(
    opened: Opened, registry: Registry, worlds: Sequence[str], changed: Sequence[str]
) -> None:
    """Print where every row of a study is measured, and which claims a world can test."""
    study = opened.study
    for world in worlds:
        recipes = recipes_of(opened, world, registry, changed)
        names = ", ".join(recipe.name for recipe in recipes)
        print(f"{study.name} on {world}: {counted(len(recipes), 'recipe')} ({names})")
        print_table(("row", *study.measures), [*rows_of(study, world, recipes, registry)])
        for says, why in claims_of(study, world, recipes, registry):
            print(f"  {'not tested here' if why else 'tested'}: {says}{f' ({why})' if why else ''}")
    print(f"{opened.path}: sound")


# --- running ---------------------------------------------------------------------------------


def run_world(opened: Opened, world: str, registry: Registry, wish: Wish) -> int:
    """Run a study's recipes seed by seed and fold after each what is finished; the exit status."""
    spec, numbers = opened.study.worlds[world], wish.numbers(opened.study.worlds[world])
    recipes = recipes_of(opened, world, registry, wish.changed)
    if spec.needs and (lacks := _lacking(recipes, registry)):
        _tell_needs(opened, world, wish, lacks)
        return 0
    done: list[SeedRuns] = []
    for count, seed in enumerate(numbers, 1):
        if is_main():
            print(f"{opened.study.name} on {world}, seed {seed} ({count} of {len(numbers)})")
        own = tuple(seeded(recipe, seed) for recipe in recipes)
        folders = tuple(folder_of(wish.output / world, r, wish.changed, registry) for r in own)
        for path, recipe, folder in zip(opened.recipes[world], own, folders, strict=True):
            words = (*wish.changed, f"seed={seed}")
            if status := _run(path, recipe, folder, registry, words):
                return status
        done.append(SeedRuns(seed, own, folders))
        if not is_main():  # the others do not know when the run is written
            continue
        origin = _origin(opened, world, done, wish, registry)
        result = fold_study(opened.study, world, done, registry, origin)
        files = write_result(result, wish.output, _name(opened, world, wish, origin))
    if is_main():
        _tell(opened, world, result, files)
    return 0


def _tell(opened: Opened, world: str, result: Result, files: Sequence[Path]) -> None:
    """The verdicts of a world, and where they stand."""
    for verdict in result.verdicts:
        print(f"  {verdict_word(verdict)}: {verdict.says} ({verdict.reason})")
    for note in result.notes:
        print(f"  note: {note}")
    print(f"{opened.study.name} on {world}: {counts(result)}; {', '.join(map(str, files))}")


def _run(
    path: Path, recipe: Recipe, folder: Path, registry: Registry, words: tuple[str, ...]
) -> int:
    """Bring one run to its end, unless the first process finds it there; the exit status."""
    crew = everyone()
    if not as_one(lambda: crew.from_main(lambda: unfinished(folder, recipe, registry))):
        if is_main():
            print(f"{recipe.name}: finished before ({folder})")
        return 0
    begun, before = (folder / "run.json").exists(), _cpu()
    spent: float | None = None
    try:
        status = run_command(Asked(str(path), words, folder, fresh=False, seeds=1))
        if status == 0 and crew.size > 1:
            spent = as_one(lambda: sum(crew.gathered(_cpu() - before)))
        return status
    finally:  # of several processes that did not end well nobody knows what all took
        if is_main() and folder.exists():
            own = _cpu() - before if crew.size == 1 else spent
            add_seconds(folder, own, whole=not begun)


def _cpu() -> float:
    """CPU seconds of this process and of those that it waited for."""
    every = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in every)


def _name(opened: Opened, world: str, wish: Wish, origin: Origin) -> str:
    """Of the files; what --set changed has a name of its own."""
    name = f"{opened.study.name}-{world}"
    if not wish.changed:
        return name
    return f"{name}-{digest_of_value(list(origin.recipes.values()))[:8]}"


def _origin(
    opened: Opened, world: str, done: Sequence[SeedRuns], wish: Wish, registry: Registry
) -> Origin:
    """What repeats the result of these seeds."""
    bundled = bundled_studies().get(opened.study.name) == opened.path
    name = opened.study.name if bundled else opened.path.name
    sets = [word for pair in wish.changed for word in ("--set", pair)]
    words = ["alignzoo", "reproduce", name, "--on", world, "--seeds", str(len(done))]
    versions, plugins = versions_of(done[0].folders)
    return Origin(
        command=shlex.join([*words, "--first-seed", str(done[0].seed), *sets]),
        commit=_commit(),
        code=f"{versions.get('alignzoo', '')}#{core_digest()}",
        versions=versions,
        plugins=plugins,
        recipes={recipe.name: recipe_digest(recipe, registry) for recipe in done[0].recipes},
        changed=wish.changed,
    )


def _commit() -> str:
    """The commit of the alignzoo that is imported, if it is a checkout; + means changed since."""
    home = Path(alignzoo.__file__).parent
    words = ["git", "-C", str(home), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        asked = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return asked.stdout.strip()


def _lacking(recipes: Sequence[Recipe], registry: Registry) -> str:
    """What the recipes read and this machine cannot have: models, data, files, judges; empty where
    nothing is missing.
    """
    try:
        for recipe in recipes:
            require_inputs(recipe, registry)
            for spec in recipe.evaluate:
                build_options(registry.find("benchmark", spec.benchmark), spec.with_).settings()
                for judge in spec.judge:
                    build_options(registry.find("judge", judge.name), judge.with_).check_here()
    except AlignzooError as error:
        return str(error)
    return ""


def _tell_needs(opened: Opened, world: str, wish: Wish, lacks: str) -> None:
    """Print what a world needs and would do and cost; nothing runs."""
    spec = opened.study.worlds[world]
    print(f"{opened.study.name} on {world}: sound, but not run here")
    print(f"needs: {spec.needs}\nmissing: {lacks}")
    if spec.cost:
        print(f"one seed costs: {spec.cost}")
    for path in opened.recipes[world]:
        print(f"\n{path}")
        plan_command(str(path), wish.changed, None, as_json=False)
        print(f"memory: alignzoo plan {path} --memory --gpus N")
