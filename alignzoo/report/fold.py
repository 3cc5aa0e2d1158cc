"""Runs on the disk -> a report. Nothing is computed anew that a run has kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import DataError, UsageError
from alignzoo.leaderboard import Section, sections_of
from alignzoo.leaderboard.evidence import Evidence, find_evidence
from alignzoo.leaderboard.fold import Row
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.registry import Registry
from alignzoo.report.alarms import alarms_of
from alignzoo.report.curves import metrics_of, spec_of, trails_of
from alignzoo.report.facts import Alarm, OverSeed, Report, Result, Samples
from alignzoo.report.results import result_of, seeds_of
from alignzoo.report.runs import Run, facts_of, find_runs, named, read_run
from alignzoo.report.samples import samples_of
from alignzoo.store.folders import deciding


def fold_report(folders: Sequence[Path], registry: Registry) -> Report:
    """Everything about some runs; what is damaged or not there is named, never guessed.

    Raises UsageError for a folder that is no run.
    """
    runs = [read_run(name, folder) for name, folder in named(find_runs(folders)).items()]
    missing = [text for run in runs for text in run.missing]
    sections, found = _results(runs, missing)
    said = [one for run in runs for one in samples_of(run)]
    missing += [one for one in said if isinstance(one, str)]
    missing += [text for run in runs for text in _unknown_methods(run, registry)]
    return Report(
        runs=tuple(facts_of(run) for run in runs),
        results=tuple(_read(sections, found, runs)),
        over_seeds=tuple(_over_seeds(runs, registry)),
        metrics=tuple(metrics_of(runs, registry)),
        trails=tuple(trails_of(runs)),
        samples=tuple(one for one in said if isinstance(one, Samples)),
        alarms=tuple(alarm for run in runs for alarm in _alarms(run, sections, registry)),
        missing=tuple(missing),
    )


def as_json(report: Report) -> dict[str, Any]:
    """Every number of a report as JSON-able values; one that is not finite is null."""
    return {key: _plain(value) for key, value in dataclasses.asdict(report).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _results(runs: Sequence[Run], missing: list[str]) -> tuple[list[Section], dict[str, Evidence]]:
    """The sections of the runs whose scores are whole, and what their evaluations kept."""
    whole: dict[str, Path] = {}
    for run in runs:
        if not (run.folder / "scores.jsonl").exists():
            missing.append(f"{run.name}: nothing is evaluated yet: no scores.jsonl")
            continue
        try:
            sections_of({run.name: run.folder})
            whole[run.name] = run.folder
        except DataError as error:
            missing.append(f"{run.name}: its results are not shown: {error}")
    try:
        sections = sections_of(whole) if whole else []
    except DataError as error:
        missing.append(f"no results are shown: {error}")
        return [], {}
    most = max((row.prompts for section in sections for row in section.rows), default=0)
    found: dict[str, Evidence] = {}
    for name, folder in whole.items():
        try:
            found = {**find_evidence([folder], sections, most), **found}
        except DataError as error:
            missing.append(f"{name}: its answers are not shown: {error}")
    return sections, found


def _read(
    sections: Sequence[Section], found: Mapping[str, Evidence], runs: Sequence[Run]
) -> Iterator[Result]:
    by_name = {run.name: run for run in runs}

    def method(row: Row) -> str:
        spec = spec_of(by_name[row.run], row.model) if row.run in by_name else None
        return spec.algorithm if spec else ""

    for section in sections:
        yield result_of(section, found, method)


def _over_seeds(runs: Sequence[Run], registry: Registry) -> Iterator[OverSeed]:
    """Of runs whose recipes decide the same but for the seed."""
    known = [deciding(run.recipe, registry) for run in runs if run.recipe]
    bare = [{**recipe, "seed": 0, "threads": 0} for recipe in known]
    if len(runs) < 2 or len(known) < len(runs) or any(r != bare[0] for r in bare):
        return
    if len({recipe["seed"] for recipe in known}) < len(runs):
        return
    try:
        yield from seeds_of([sections_of({run.name: run.folder}) for run in runs])
    except (DataError, UsageError):  # one of them is not done yet
        return


def _alarms(run: Run, sections: Sequence[Section], registry: Registry) -> Iterator[Alarm]:
    yield from alarms_of(run, registry)
    for section in sections:
        for row in section.rows:
            if row.run == run.name and row.counts and row.counts.failed:
                text = f"{row.counts.failed} of {row.counts.judged} questions about {row.model} "
                yield Alarm(run.name, section.benchmark, None, f"{text}have no verdict")


def _unknown_methods(run: Run, registry: Registry) -> Iterator[str]:
    """Methods that cannot say what their metrics mean, or may have meant something else."""
    plugins = run.record.get("plugins")
    known = plugins if isinstance(plugins, list) else []
    for spec in run.recipe.stages if run.recipe else ():
        if not isinstance(spec, TrainSpec):
            continue
        place, cls = f"{run.name}/{spec.name}", registry.algorithms.get(spec.algorithm)
        if cls is None:
            yield (
                f"{place}: '{spec.algorithm}' is not installed here, so units and healthy ranges "
                "of its metrics are not known"
            )
        elif known and registry.owner(cls).identity not in known:
            yield (
                f"{place}: the run used another version of '{spec.algorithm}' than the one "
                "installed here, whose units and healthy ranges are shown"
            )
