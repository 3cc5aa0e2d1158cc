"""`alignzoo check`: run the conformance kit on an installed plug-in, or on one in a folder."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from alignzoo.cli.looking.catalogue import RECIPE, built_in, built_in_class
from alignzoo.cli.terminal.names import bundled_recipes
from alignzoo.cli.terminal.screen import print_table
from alignzoo.contract.errors import DataError, PluginError, RecipeError, UsageError, suggest
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.options import MISSING, build_options, try_options
from alignzoo.recipe.registry import KINDS, Registry, load_plugins
from alignzoo.recipe.text import values_of
from alignzoo.testing import (
    STRATEGIES,
    Check,
    run_algorithm_checks,
    run_benchmark_checks,
    run_dataset_checks,
    run_engine_checks,
    run_judge_checks,
    run_stage_checks,
    run_tracker_checks,
)

KITS: Mapping[str, Callable[[Any], list[Check]]] = {
    "algorithm": run_algorithm_checks,
    "dataset": run_dataset_checks,
    "benchmark": run_benchmark_checks,
    "engine": run_engine_checks,
    "stage": run_stage_checks,
    "tracker": run_tracker_checks,
}


@dataclass(frozen=True)
class Asked:
    """Options of the plug-in, and on how many processes an algorithm trains, laid out how."""

    options: Mapping[str, Any]
    processes: int = 1
    strategies: Sequence[str] = ()  # none: those of the kit


@dataclass(frozen=True)
class Result:
    """The promises of one thing; `untried` says why there are none, or no more."""

    title: str
    checks: Sequence[Check]
    untried: str = ""


def check_command(target: str, asked: Asked, as_json: Path | None) -> int:
    """Check everything of that name, or everything in that folder; 1 if a promise is broken."""
    if asked.strategies and asked.processes == 1:
        raise UsageError("--strategy needs --processes: several, over which models lie")
    registry, chosen = _chosen(target)
    if asked.processes > 1 and not any(kind == "algorithm" for kind, _, _ in chosen):
        raise UsageError(f"--processes tries algorithms, and {target} is none")
    results = [_run(kind, name, what, asked, registry) for kind, name, what in chosen]
    for result in results:
        _print(result)
    broken = sum(not c.kept for result in results for c in result.checks)
    if as_json is not None:
        found = {r.title: [asdict(c) for c in r.checks] for r in results}
        as_json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    untried = sum(bool(result.untried) for result in results)
    kept = "all promises kept" if untried < len(results) else "nothing was tried"
    print(f"{broken} broken" if broken else kept)
    return 1 if broken else 0


def _print(result: Result) -> None:
    print(result.title)
    rows = [("kept" if c.kept else "BROKEN", c.promise, c.detail) for c in result.checks]
    if rows:
        print_table(("", "promise", "detail"), rows)
    for check in result.checks:
        if check.where:
            print(f"{check.where}: {check.promise}")
    if result.untried:
        print(f"not tried: {result.untried}")
    print()


def parse_options(pairs: Sequence[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """{"r": 2} from --with r=2 or --set with.r=2; values are those of recipes."""
    bad = [pair for pair in pairs if "=" not in pair]
    if bad:
        raise UsageError(f"--with {bad[0]}: write KEY=VALUE")
    elsewhere = [word for word in overrides if not word.strip().startswith("with.")]
    if elsewhere:
        raise UsageError(f"--set {elsewhere[0]}: check sets options only, as in with.size=100")
    values = values_of([*(f"with.{pair}" for pair in pairs), *overrides])
    options: dict[str, Any] = values.get("with", {})
    return options


def _chosen(target: str) -> tuple[Registry, list[tuple[str, str, Any]]]:
    path = Path(target)
    if path.exists() and path.suffix == ".yaml":
        return load_plugins(), [(RECIPE, target, path)]
    if path.exists():
        modules = [_imported(file) for file in _packages(path)]
        installed = {plugin.module for plugin in load_plugins().plugins}
        registry = load_plugins([m for m in modules if m.__name__ not in installed])
        names = {m.__name__ for m in modules}
        wanted = [x for x in _registered(registry) if registry.owner(x[2]).module in names]
        if not wanted:
            raise PluginError(f"{target}: registers no {', '.join(KINDS)}{_why(registry, names)}")
        return registry, wanted
    registry = load_plugins()
    registry.refuse_clash(target)
    every = [*_registered(registry), *_own()]
    wanted = [x for x in every if x[1] == target]
    wanted = wanted or [
        (k, target, registry.kinds[k][target]) for k in KINDS if target in registry.kinds[k]
    ]
    if not wanted:
        near = suggest(target, [name for _, name, _ in every])
        raise UsageError(f"'{target}' is no installed plug-in and no folder{near}")
    return registry, wanted


def _why(registry: Registry, modules: Container[str]) -> str:
    """What kept a given module from registering anything."""
    return "".join(f"; {b.error}" for b in registry.broken if b.module in modules)


def _registered(registry: Registry) -> Iterator[tuple[str, str, Any]]:
    for kind in KINDS:
        for name, cls in registry.kinds[kind].items():
            yield kind, name, cls


def _own() -> Iterator[tuple[str, str, Any]]:
    """What the core itself lists: an engine, stages, recipes."""
    for kind, found in built_in().items():
        for name in found:
            yield kind, name, built_in_class(name)
    for name, path in bundled_recipes().items():
        yield RECIPE, name, path


def _packages(path: Path) -> list[Path]:
    """The modules a path holds: a file, a package, or a project with packages in it."""
    if path.is_file() or (path / "__init__.py").exists():
        return [path]
    found = [p for p in sorted(path.iterdir()) if (p / "__init__.py").exists()]
    if not found:
        raise UsageError(f"{path}: no Python package in it")
    return found


def _imported(path: Path) -> ModuleType:
    path = path.resolve()
    sys.path.insert(0, str(path.parent))
    try:
        return importlib.import_module(path.stem)
    except Exception as error:  # a stranger's import may raise anything
        raise PluginError(f"{path}: {type(error).__name__}: {error}") from error


def _run(kind: str, name: str, what: Any, asked: Asked, registry: Registry) -> Result:
    title = f"{kind} {name}"
    if kind == RECIPE:
        return Result(title, [_recipe(what, registry)])
    if issubclass(what, BaseModel):
        return Result(title, (), "it is a part of alignzoo, whose own tests try it")
    given = asked.options or what.example_options
    plugin, faults = try_options(what, given)
    needed = [str(f.path[0]) for f in faults if f.what.startswith(MISSING)]
    if plugin is None and needed and len(needed) == len(faults):
        words = [f"`--with {key}=...` ({f.what})" for key, f in zip(needed, faults, strict=True)]
        return Result(title, (), f"it needs {' and '.join(words)}")
    if plugin is None:
        plugin = build_options(what, given)  # raises, with every fault
    if absent := _absent(kind, plugin):
        return Result(title, (), absent)
    if kind == "judge":
        return Result(title, run_judge_checks(plugin, _prompts(registry, what)))
    return Result(title, _kit(kind, asked)(plugin))


def _kit(kind: str, asked: Asked) -> Callable[[Any], list[Check]]:
    if kind != "algorithm" or asked.processes == 1:
        return KITS[kind]
    strategies = asked.strategies or STRATEGIES
    return partial(run_algorithm_checks, processes=asked.processes, strategies=strategies)


def _recipe(path: Path, registry: Registry) -> Check:
    """Whether a recipe fits the installed plug-ins."""
    promise = "it fits the plug-ins"
    try:
        recipe = load_recipe(path, registry)
    except RecipeError as error:
        return Check(promise, False, str(error))
    what = f"{len(recipe.stages)} stages, {len(recipe.evaluate)} evaluations"
    return Check(promise, True, what)


def _absent(kind: str, plugin: Any) -> str:
    """Which files of a benchmark, or what of a tracker, this machine lacks; "": nothing."""
    if kind == "tracker":
        return str(plugin.lacks())
    if kind != "benchmark":
        return ""
    try:
        plugin.settings()
        next(iter(plugin.prompts(0)), None)
    except DataError as error:
        return str(error)
    except Exception:  # not for want of a file: a promise that the kit will find broken
        return ""
    return ""


def _prompts(registry: Registry, judge: type[Any]) -> list[Any]:
    """Prompts of the judge's own plug-in where it has some: an oracle needs its own world."""
    owner = registry.owner(judge)
    own = [b for b in registry.benchmarks.values() if registry.owner(b) == owner]
    if own:
        return list(own[0]().prompts(0))
    from alignzoo.contract.types import PromptSample

    return [PromptSample(text) for text in ("Say hello.", "Once upon a time", "2 + 2 =")]
