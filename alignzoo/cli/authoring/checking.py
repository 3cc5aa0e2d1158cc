"""`alignzoo check`: run the conformance kit on an installed plug-in, or on one in a folder."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from alignzoo.cli.terminal.screen import print_table
from alignzoo.contract.errors import PluginError, UsageError, suggest
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry, load_plugins
from alignzoo.testing import (
    Check,
    run_algorithm_checks,
    run_benchmark_checks,
    run_engine_checks,
    run_judge_checks,
)

KINDS = ("algorithm", "judge", "benchmark", "engine")


def check_command(target: str, options: Mapping[str, Any], as_json: Path | None) -> int:
    """Check everything of that name, or everything in that folder; 1 if a promise is broken."""
    registry, chosen = _chosen(target)
    results: dict[str, list[Check]] = {}
    for kind, name, cls in chosen:
        results[f"{kind} {name}"] = _run(kind, cls, options, registry)
    for title, checks in results.items():
        print(title)
        rows = [("kept" if c.kept else "BROKEN", c.promise, c.detail) for c in checks]
        print_table(("", "promise", "detail"), rows)
        print()
    broken = sum(not c.kept for checks in results.values() for c in checks)
    if as_json is not None:
        found = {title: [asdict(c) for c in checks] for title, checks in results.items()}
        as_json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    print(f"{broken} broken" if broken else "all promises kept")
    return 1 if broken else 0


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """{"r": 2} from ["r=2"]; values are YAML."""
    split = [pair.partition("=") for pair in pairs]
    bad = [key for key, equals, _ in split if not equals]
    if bad:
        raise UsageError(f"--with {bad[0]}: write KEY=VALUE")
    return {key: yaml.safe_load(value) for key, _, value in split}


def _chosen(target: str) -> tuple[Registry, list[tuple[str, str, type[Any]]]]:
    path = Path(target)
    if path.exists():
        modules = [_imported(file) for file in _packages(path)]
        installed = {plugin.module for plugin in load_plugins().plugins}
        registry = load_plugins([m for m in modules if m.__name__ not in installed])
        names = {m.__name__ for m in modules}
        wanted = [x for x in _everything(registry) if registry.owner(x[2]).module in names]
        if not wanted:
            raise PluginError(f"{target}: registers no {', '.join(KINDS)}")
        return registry, wanted
    registry = load_plugins()
    wanted = [x for x in _everything(registry) if x[1] == target]
    if not wanted:
        known = [name for _, name, _ in _everything(registry)]
        raise UsageError(
            f"'{target}' is no installed plug-in and no folder{suggest(target, known)}"
        )
    return registry, wanted


def _everything(registry: Registry) -> Iterator[tuple[str, str, type[Any]]]:
    for kind in KINDS:
        for name, cls in registry.kinds[kind].items():
            yield kind, name, cls


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


def _run(kind: str, cls: type[Any], options: Mapping[str, Any], registry: Registry) -> list[Check]:
    plugin = build_options(cls, options)
    if kind == "judge":
        return run_judge_checks(plugin, _prompts(registry, cls))
    kit: dict[str, Callable[[Any], list[Check]]] = {
        "algorithm": run_algorithm_checks,
        "benchmark": run_benchmark_checks,
        "engine": run_engine_checks,
    }
    return kit[kind](plugin)


def _prompts(registry: Registry, judge: type[Any]) -> list[Any]:
    """Prompts of the judge's own plug-in where it has some: an oracle needs its own world."""
    owner = registry.owner(judge)
    own = [b for b in registry.benchmarks.values() if registry.owner(b) == owner]
    if own:
        return list(own[0]().prompts(0))
    from alignzoo.contract.types import PromptSample

    return [PromptSample(text) for text in ("Say hello.", "Once upon a time", "2 + 2 =")]
