"""What reported itself: rails and promises, found again in the logs, and how runs ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import AlignzooError, counted
from alignzoo.engine.train.rails import Rails, Watch, same_start
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.roles import bound_roles
from alignzoo.report.curves import spec_of
from alignzoo.report.facts import Alarm
from alignzoo.report.runs import Run, status_of
from alignzoo.store.inputs import INITIAL

BEST = "validation/"


def alarms_of(run: Run, registry: Registry) -> Iterator[Alarm]:
    """Everything that a reader of the run's numbers should have seen."""
    status, error = status_of(run), str(run.record.get("error", ""))
    if status not in ("done", "not known"):
        yield Alarm(run.name, "", None, f"the run is {status}" + (f": {error}" if error else ""))
    for stage, log in run.logs.items():
        spec = spec_of(run, stage)
        if spec is not None and log.rows:
            yield from _rails(run, spec, log.rows, registry)
            yield from _kept(run, spec, log.rows)


def _rails(
    run: Run, spec: TrainSpec, rows: tuple[Mapping[str, float], ...], registry: Registry
) -> Iterator[Alarm]:
    """What the loop's own watch says of the logged steps."""
    cls = registry.algorithms.get(spec.algorithm)
    if cls is None:
        return
    try:
        algorithm: Algorithm[Any] = build_options(cls, spec.with_)
        bound = {role: name or INITIAL for role, name in bound_roles(spec, cls).items()}
    except (AlignzooError, KeyError):  # the method has other options by now
        return
    said: list[str] = []
    precise = run.recipe is not None and run.recipe.precision == "fp32"
    rails = Rails(
        max_kl=spec.rails.max_kl,
        max_truncated=spec.rails.max_truncated,
        tolerance=2e-3 if precise else 5e-2,
        say=said.append,
    )
    watch = Watch(algorithm, same_start(algorithm, bound), rails)
    for row in rows:
        step = int(row["step"])
        watch.see(step, {name: x for name, x in row.items() if name != "step"})
        yield from (Alarm(run.name, spec.name, step, text) for text in said)
        said.clear()


def _kept(run: Run, spec: TrainSpec, rows: tuple[Mapping[str, float], ...]) -> Iterator[Alarm]:
    """With validation, the step whose weights were kept, where it is not the last."""
    if spec.validation is None:
        return
    name = BEST + spec.validation.metric
    sign = 1 if spec.validation.better == "higher" else -1
    seen = [(sign * row[name], -row["step"]) for row in rows if name in row]
    if seen and (best := max(seen))[1] != -rows[-1]["step"]:
        later = int(rows[-1]["step"] + best[1])
        text = f"{name} was best {counted(later, 'step')} before the last logged one; a stage with "
        text += "validation keeps its best weights"
        yield Alarm(run.name, spec.name, int(-best[1]), text)
