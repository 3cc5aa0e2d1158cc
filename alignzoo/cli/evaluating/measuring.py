"""`alignzoo eval`: existing models on a benchmark, as a run of its own without stages."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alignzoo.cli.doing.running import report
from alignzoo.cli.evaluating.preview import preview_command
from alignzoo.cli.terminal.console import watch
from alignzoo.cli.terminal.names import TrainedStage, find_speakers, origin_of
from alignzoo.contract.errors import PluginError, Problem, RecipeError, UsageError
from alignzoo.engine.parallel.agreement import is_main
from alignzoo.judging.outputs import looks_like_outputs, read_outputs
from alignzoo.recipe.blocks import EvaluateSpec, PartialSampling, Recipe
from alignzoo.recipe.faults import Block, Fault, validate
from alignzoo.recipe.judges import judge_faults
from alignzoo.recipe.options import option_faults
from alignzoo.recipe.registry import Registry, load_plugins
from alignzoo.recipe.spec import JudgeSpec, Spec
from alignzoo.recipe.text import read_value
from alignzoo.run import How, RunResult, run_recipe
from alignzoo.store.folders import default_folder

SEVERAL = "is there several times; write each as --judge '{name: NAME, with: {KEY: VALUE}}'"
ELSEWHERE = {"benchmark": "--benchmark", "models": "targets", "baseline": "--baseline"}


@dataclass(frozen=True)
class Measurement:
    """What the command line asks for."""

    targets: Sequence[str]
    benchmark: str
    judges: Sequence[str]
    baseline: str | None
    samples: int
    limit: int | None
    options: Sequence[str]
    seed: int | None


@dataclass(frozen=True)
class Manner:
    """How it is to be done and shown."""

    dry_run: bool = False
    again: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Named:
    """A model and how the table calls it."""

    label: str
    model: str  # a folder or a hub name
    stage: TrainedStage | None = None


def eval_command(wanted: Measurement, output: Path | None, manner: Manner) -> int:
    """Measure the targets and print the table; the exit status."""
    registry = load_plugins()
    models = [found for name in wanted.targets for found in named(name)]
    baseline = _only(wanted.baseline) if wanted.baseline else None
    recipe = measuring_recipe(wanted, models, baseline, registry)
    labels = labels_of([*models, *([baseline] if baseline else [])])
    if manner.dry_run:
        if not is_main():
            return 0
        return preview_command(recipe, registry, labels, as_json=manner.as_json)
    folder = output or default_folder(recipe, registry)
    source = yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True, exclude_none=True))

    def work() -> RunResult:
        progress, display = watch(sys.stderr if manner.as_json else sys.stdout)
        with display:
            how = How(again=manner.again, labels=labels, alone=True)
            return run_recipe(recipe, source, registry, folder, progress, how)

    return report(work, folder, as_json=manner.as_json)


def named(name: str) -> list[Named]:
    """What a name stands for: a run's language models, a file of outputs, or one model."""
    if looks_like_outputs(Path(name)) and not Path(name).exists():
        raise UsageError(f"{name}: no such file")
    if Path(name).is_file():
        writers = {output.generator for output in read_outputs(Path(name))}
        stem = re.sub(r"\.jsonl?(\.gz)?$", "", Path(name).name)
        return [Named((writers.pop() if len(writers) == 1 else None) or stem, name)]
    stages = [Named(stage.label, str(stage.model), stage) for stage in find_speakers(name)]
    return stages or [Named(name, name)]


def labels_of(models: Sequence[Named]) -> dict[str, str]:
    """How tables call the models; the whole name where a short one stands for several."""
    given = {found.model: found.label for found in models}
    often = Counter(given.values())
    return {model: label if often[label] == 1 else model for model, label in given.items()}


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
    named_models = [*models, *([baseline] if baseline else [])]
    if "sampling" in spec.model_fields_set and all(Path(m.model).is_file() for m in named_models):
        raise UsageError("--set sampling: nothing is sampled, every target is a file of outputs")
    origin = next((origin_of(f.stage) for f in models if f.stage), {})
    return Recipe(
        name=f"eval-{wanted.benchmark}",
        model=models[0].model,
        seed=origin.get("seed", 0) if wanted.seed is None else wanted.seed,
        precision=origin.get("precision", "fp32"),
        attn_implementation=origin.get("attn_implementation"),
        stages=(),
        evaluate=(spec,),
    )


def evaluation(wanted: Measurement, registry: Registry) -> EvaluateSpec:
    """The `evaluate` block that the options describe."""
    try:
        benchmark = registry.find("benchmark", wanted.benchmark)
    except PluginError as error:
        raise UsageError(f"--benchmark {wanted.benchmark}: {error}") from error
    spec, faults = _checked(_written(wanted), benchmark, registry)
    if words := set(map(_place, faults)):  # with.revision=2025 may mean the text
        words -= set(map(_place, _checked(_written(wanted, words), benchmark, registry)[1]))
        spec, faults = _checked(_written(wanted, words), benchmark, registry)
    if faults or spec is None:
        raise RecipeError(list(_problems(faults)))
    return spec


def _written(wanted: Measurement, as_text: Collection[str] = ()) -> dict[str, Any]:
    """The block as the options write it; values of the keys in `as_text` are no JSON."""
    data: dict[str, Any] = {"benchmark": wanted.benchmark, "samples": wanted.samples}
    judges = [judge_named(text) for text in wanted.judges]
    if judges:
        data["judge"] = judges if len(judges) > 1 else judges[0]
    if wanted.limit is not None:
        data["limit"] = wanted.limit
    for option in wanted.options:
        key, _, text = option.partition("=")
        if key in ELSEWHERE:
            raise UsageError(f"--set {key}: give this as {ELSEWHERE[key]}")
        place(data, f"{key}={json.dumps(text)}" if key in as_text else option)
    return data


def _checked(
    data: Mapping[str, Any], benchmark: type[Any], registry: Registry
) -> tuple[EvaluateSpec | None, tuple[Fault, ...]]:
    spec, faults = validate(EvaluateSpec, data, _block)
    given = data.get("with", {})
    if isinstance(given, dict):
        faults += tuple(f.under(("with",)) for f in option_faults(benchmark, given))
    if spec is not None:
        faults += tuple(judge_faults(spec, registry))
    return spec, faults


def judge_named(text: str) -> dict[str, Any]:
    """A judge of the command line: a name, or a YAML mapping of name and options."""
    if not text.startswith("{"):
        return {"name": text, "with": {}}
    try:
        given = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an impossible date; "{{{{{"
        why = " ".join(str(error).split())
        raise UsageError(f"--judge {text[:200]}: not YAML: {why}") from error
    return dict(given)


def _problems(faults: Iterable[Fault]) -> Iterable[Problem]:
    for fault in faults:
        place = _place(fault)
        flag = {"": "--set", "benchmark": "--benchmark", "judge.name": "--judge"}.get(
            place, f"--set {place}"
        )
        yield Problem(flag, fault.what)


def _place(fault: Fault) -> str:
    """Where --set puts the value: one of several judges is not told apart."""
    return ".".join(str(step) for step in fault.path if not isinstance(step, int))


def _block(path: tuple[str | int, ...]) -> Block:
    inner: dict[str, type[Spec]] = {"sampling": PartialSampling, "judge": JudgeSpec}
    spec = inner.get(str(path[0]), EvaluateSpec) if path else EvaluateSpec
    keys = (field.alias or name for name, field in spec.model_fields.items())
    words = [str(step) for step in path if not isinstance(step, int)]
    return Block("key", ".".join(words) or "an evaluation", tuple(keys))


def place(data: dict[str, Any], option: str) -> None:
    """Put "sampling.top_p=0.9" where it belongs; a value is JSON, a YAML block or plain text."""
    path, sign, text = option.partition("=")
    *above, last = path.split(".")
    if not sign or not all((*above, last)):
        raise UsageError(f"--set {option}: write KEY=VALUE, for example with.size=100")
    for key in above:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            what = SEVERAL if isinstance(data, list) else "is a value, not a block"
            raise UsageError(f"--set {option}: '{key}' {what}")
    data[last] = _value(text)


def _value(text: str) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    with suppress(RecipeError):
        return read_value(text) if text.startswith(("{", "[")) else text
    return text
