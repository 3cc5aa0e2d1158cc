"""`alignzoo run`, `plan`, `eval` and `leaderboard`: from a command line to a run and its table."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from alignzoo import leaderboard
from alignzoo.cli.terminal.names import check_folder_of_runs, find_recipe
from alignzoo.cli.terminal.outputs import check_outputs
from alignzoo.cli.terminal.screen import print_json, print_table, width
from alignzoo.cli.terminal.stopping import speaks
from alignzoo.contract.errors import Interrupted, UsageError
from alignzoo.engine.parallel.agreement import is_main
from alignzoo.launch.worker import place_run
from alignzoo.leaderboard import read_leaderboard, render_text
from alignzoo.leaderboard.seeds import markdown, over_seeds, rows_of
from alignzoo.plan import plan_recipe
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.faults import FaultyRecipe
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import Registry, load_plugins
from alignzoo.recipe.text import read_source
from alignzoo.run import How, RunResult, run_recipe
from alignzoo.store.files import read_json, write_text
from alignzoo.store.folders import default_folder, runs_in

INTERRUPTED = 130


@dataclass(frozen=True)
class Asked:
    """What `alignzoo run` was asked to do, whoever does it."""

    recipe: str
    overrides: tuple[str, ...]
    output: Path | None
    fresh: bool
    seeds: int
    sweep: tuple[str, ...] = ()  # key.path=VALUE,VALUE: a run for each
    again: bool = False  # ask judges anew what they answered without a verdict

    @property
    def words(self) -> list[str]:
        """The same as a command line, for a worker."""
        sets = [word for value in self.overrides for word in ("--set", value)]
        output = ["--output", str(self.output)] if self.output else []
        flags = {"--fresh": self.fresh, "--rejudge-failed": self.again}
        given = [flag for flag, is_given in flags.items() if is_given]
        seeds = ["--seeds", str(self.seeds)]
        sweeps = [word for values in self.sweep for word in ("--sweep", values)]
        return ["run", self.recipe, *sets, *output, *given, *seeds, *sweeps]

    def folder(self, recipe: Recipe, registry: Registry) -> Path:
        """Where the results of all seeds go."""
        if self.output is not None:
            return self.output
        own = default_folder(recipe, registry)
        return own if self.seeds == 1 else Path(f"{own}-{self.seeds}-seeds")


def run_command(asked: Asked) -> int:
    """Run a recipe and print its leaderboard; the exit status."""
    path = find_recipe(asked.recipe)
    registry = load_plugins()
    recipe = load_recipe(path, registry, asked.overrides)
    folder = asked.folder(recipe, registry)
    place_run(folder)
    pages: list[str] = []

    def write_page() -> None:
        from alignzoo.cli.doing.reporting import report_of

        pages.append(report_of([folder], folder, registry))

    def work() -> RunResult:
        from alignzoo.cli.terminal.console import watch

        progress, display = watch()
        source = path.read_text(encoding="utf-8")
        how = How(asked.again, asked.fresh, when_done=write_page)
        with display, placed(path, asked.overrides):
            return run_recipe(recipe, source, registry, folder, progress, how)

    with cache_of_its_own(folder) if asked.fresh else nullcontext():
        status = report(work, folder)
    for page in pages:  # one, on the rank that wrote it
        print(page)
    return status


@contextmanager
def placed(path: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Say where in its file a recipe names what cannot be had."""
    try:
        yield
    except FaultyRecipe as error:
        raise read_source(path, overrides).error(error.faults) from error


def run_seeds_command(asked: Asked) -> int:
    """Run a recipe with its seed and the next ones, then print means over seeds; exit status."""
    registry = load_plugins()
    first = load_recipe(find_recipe(asked.recipe), registry, asked.overrides)
    numbers = range(first.seed, first.seed + asked.seeds)
    folder = asked.folder(first, registry)
    check_folder_of_runs(folder, "--seeds")
    runs = []
    for seed in numbers:
        place = folder / f"seed-{seed}"
        words = (*asked.overrides, f"seed={seed}")
        status = run_command(replace(asked, overrides=words, output=place, seeds=1))
        if status:
            return status
        if is_main():  # the others do not know when it is written
            runs.append(read_leaderboard([place]))
    if is_main():
        tables = over_seeds(runs)
        for table in tables:
            print_table((table.benchmark, *table.columns), rows_of(table))
        write_text(folder / "seeds.md", markdown(tables, numbers))
        print(f"mean ± standard error over seeds {numbers[0]}-{numbers[-1]}: {folder / 'seeds.md'}")
        from alignzoo.cli.doing.reporting import report_of

        print(report_of([folder / f"seed-{seed}" for seed in numbers], folder, registry))
    return 0


def report(
    work: Callable[[], RunResult],
    folder: Path,
    *,
    as_json: bool = False,
) -> int:
    """Do the work and print its tables, or say how to go on after Ctrl-C; the exit status."""
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():  # what plug-ins print
            result = work()
    except KeyboardInterrupt as stop:
        if speaks():  # the launching process says it for all
            print(f"\n{resume_hint(folder)}", file=sys.stderr)
        return stop.code if isinstance(stop, Interrupted) else INTERRUPTED
    if not is_main():
        return 0
    if as_json:
        print_json(leaderboard.as_json(result.sections))
    else:
        print("\n" + render_text(result.sections, width()))
        print(f"results: {result.folder}")
    return 0


def resume_hint(folder: Path) -> str:
    """How to go on, and where that will be."""
    words = [word for word in sys.argv[1:] if word != "--fresh"]
    again = f"interrupted; `{shlex.join(['alignzoo', *words])}` again"
    for stage in sorted((folder / "stages").glob("*-*")):
        if read_json(stage / "stage.json").get("status") == "running":
            saved = sorted((stage / "state").glob("step-*"))
            step = int(saved[-1].name.removeprefix("step-")) if saved else 0
            return f"{again} resumes in stage '{stage.name.partition('-')[2]}' at step {step}"
    return f"{again} goes on from there"


@contextmanager
def cache_of_its_own(folder: Path) -> Iterator[None]:
    """Keep a run from finding the results of others; the same place for all its processes.

    The run sweeps it when it begins, for it has the name of a draft.
    """
    usual = os.environ.get("ALIGNZOO_CACHE")
    own = folder / ".cache.tmp"
    os.environ["ALIGNZOO_CACHE"] = str(own)
    try:
        yield
    finally:
        os.environ.pop("ALIGNZOO_CACHE")
        if usual is not None:
            os.environ["ALIGNZOO_CACHE"] = usual


def plan_command(
    name: str, overrides: Sequence[str], output: Path | None, *, as_json: bool
) -> None:
    """Print what a run of the recipe would do."""
    registry = load_plugins()
    path = find_recipe(name)
    recipe: Recipe = load_recipe(path, registry, overrides)
    with placed(path, overrides):
        plan = plan_recipe(recipe, registry, output)
    if as_json:
        print_json(asdict(plan))
        return
    rows = [
        (step.name, step.kind, step.what, step.status, step.steps, _bound(step.models))
        for step in (*plan.stages, *plan.evaluations)
    ]
    print_table(("stage", "kind", "of", "status", "steps", "models"), rows)
    for note in plan.notes:
        print(f"note: {note}")
    if plan.strategy != "ddp":
        print(f"parallel: {plan.strategy}")
    print(f"folder: {plan.folder}")


def _bound(models: Mapping[str, str]) -> str:
    return ", ".join(f"{role} = {name}" for role, name in models.items())


def leaderboard_command(
    runs: Sequence[Path],
    *,
    as_json: bool,
    as_csv: bool = False,
    html: Path | None = None,
    prompts: int = leaderboard.PROMPTS,
) -> None:
    """Print the results of several runs, or write them as a page with that many prompts."""
    if as_json and as_csv:
        raise UsageError("--json and --csv: choose one of them")
    check_outputs({"--html": html})
    for folder in runs:
        if not folder.exists():
            raise UsageError(f"{folder}: not there; name the folders of runs, or bundles")
    runs = [run for place in runs for run in (own_runs(place) or [place])]
    sections = read_leaderboard(finished_runs(runs))
    if html is not None:
        _write_page(html, leaderboard.render_page(sections, runs, prompts))
    if as_json:
        print_json(leaderboard.as_json(sections))
    elif as_csv:
        print(leaderboard.render_csv(sections), end="")
    elif html is None:
        print(render_text(sections, width(), "with --csv"), end="")


def own_runs(place: Path) -> list[Path]:
    """The runs in a folder of `--seeds` or `--sweep`; none for a run or a bundle."""
    return [] if place.is_file() or (place / "scores.jsonl").exists() else runs_in(place)


def finished_runs(runs: Sequence[Path]) -> Sequence[Path]:
    """The runs with results, if any has some; the others are named."""
    found = [place for place in runs if place.is_file() or (place / "scores.jsonl").exists()]
    for folder in sorted({*runs} - {*found}) if found else ():
        print(f"{folder}: left out, it has no results yet", file=sys.stderr)
    return found or runs


def _write_page(file: Path, page: str) -> None:
    write_text(file, page)
    print(f"page: {file} ({file.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)
