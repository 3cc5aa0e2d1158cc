"""`alignzoo eval`: existing models on a benchmark, as a run of its own without stages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from alignzoo.cli.console import watch
from alignzoo.cli.find import TrainedStage, find_stages
from alignzoo.cli.running import report
from alignzoo.errors import PluginError, Problem, RecipeError, UsageError
from alignzoo.faults import Block, Fault, validate
from alignzoo.leaderboard import Section
from alignzoo.options import option_faults
from alignzoo.plugins import Registry, load_plugins
from alignzoo.recipe import EvaluateSpec, Recipe, SamplingSpec
from alignzoo.run import RunResult, default_folder, run_recipe


@dataclass(frozen=True)
class Measurement:
    """What the command line asks for."""

    models: Sequence[str]
    benchmark: str
    baseline: str | None
    samples: int
    options: Sequence[str]
    seed: int | None


@dataclass(frozen=True)
class Named:
    """A model and how the table calls it."""

    label: str
    model: str  # a folder or a hub name
    stage: TrainedStage | None = None


def eval_command(wanted: Measurement, output: Path | None) -> int:
    """Measure the models and print the table; the exit status."""
    registry = load_plugins()
    models = [found for name in wanted.models for found in named(name)]
    baseline = _only(wanted.baseline) if wanted.baseline else None
    recipe = measuring_recipe(wanted, models, baseline, registry)
    folder = output or default_folder(recipe)
    source = yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True, exclude_none=True))
    labels = {found.model: found.label for found in (*models, *([baseline] if baseline else ()))}

    def work() -> RunResult:
        progress, display = watch()
        with display:
            return run_recipe(recipe, source, registry, folder, progress)

    return report(work, folder, lambda section: relabelled(section, labels))


def named(name: str) -> list[Named]:
    """The models a name stands for: every trained stage of a run, else one."""
    stages = [Named(stage.label, str(stage.model), stage) for stage in find_stages(name)]
    return stages or [Named(name, name)]


def _only(name: str) -> Named:
    found = named(name)
    if len(found) > 1:
        every = ", ".join(f"{name}/{f.label.rpartition('/')[2]}" for f in found)
        raise UsageError(f"--baseline {name} has several models; name one of {every}")
    return found[0]


def measuring_recipe(
    wanted: Measurement, models: Sequence[Named], baseline: Named | None, registry: Registry
) -> Recipe:
    """A recipe without stages that evaluates the models, in the world they come from.

    Raises RecipeError with every wrong option, UsageError for an unknown benchmark.
    """
    spec = evaluation(wanted, registry).model_copy(
        update={
            "models": tuple(dict.fromkeys(found.model for found in models)),
            "baseline": baseline.model if baseline else None,
        }
    )
    origin = next((origin_of(f.stage) for f in models if f.stage), {})
    return Recipe(
        name=f"eval-{wanted.benchmark}",
        model=models[0].model,
        seed=origin.get("seed", 0) if wanted.seed is None else wanted.seed,
        precision=origin.get("precision", "fp32"),
        stages=(),
        evaluate=(spec,),
    )


def origin_of(stage: TrainedStage) -> dict[str, Any]:
    """The resolved recipe of the run a model comes from."""
    text = (stage.run / "recipe.yaml").read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    return recipe if isinstance(recipe, dict) else {}


def evaluation(wanted: Measurement, registry: Registry) -> EvaluateSpec:
    """The `evaluate` block that the options describe."""
    try:
        benchmark = registry.find("benchmark", wanted.benchmark)
    except PluginError as error:
        raise UsageError(f"--benchmark {wanted.benchmark}: {error}") from error
    data: dict[str, Any] = {"benchmark": wanted.benchmark, "samples": wanted.samples}
    for option in wanted.options:
        place(data, option)
    spec, faults = validate(EvaluateSpec, data, _block)
    given = data.get("with", {})
    if isinstance(given, dict):
        faults += tuple(f.under(("with",)) for f in option_faults(benchmark, given))
    if faults or spec is None:
        raise RecipeError(list(_problems(faults)))
    return spec


def _problems(faults: Iterable[Fault]) -> Iterable[Problem]:
    return (Problem(f"--set {'.'.join(map(str, fault.path))}", fault.what) for fault in faults)


def _block(path: tuple[str | int, ...]) -> Block:
    spec = SamplingSpec if path == ("sampling",) else EvaluateSpec
    keys = (field.alias or name for name, field in spec.model_fields.items())
    return Block("key", ".".join(map(str, path)) or "an evaluation", tuple(keys))


def place(data: dict[str, Any], option: str) -> None:
    """Put "sampling.top_p=0.9" where it belongs; a value is JSON or plain text."""
    path, sign, text = option.partition("=")
    *above, last = path.split(".")
    if not sign or not all((*above, last)):
        raise UsageError(f"--set {option}: write KEY=VALUE, for example with.size=100")
    for key in above:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise UsageError(f"--set {option}: '{key}' is a value, not a block")
    try:
        data[last] = json.loads(text)
    except ValueError:
        data[last] = text


def relabelled(section: Section, labels: dict[str, str]) -> Section:
    """The section with the names that the command line used."""
    rows = tuple(replace(row, model=labels.get(row.model, row.model)) for row in section.rows)
    baseline = labels.get(section.baseline or "", section.baseline)
    return replace(section, rows=rows, baseline=baseline)
