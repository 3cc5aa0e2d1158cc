"""A report's runs read token by token, stage by stage, as `alignzoo lens` reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from alignzoo.cli.doing.lens import Asked, look
from alignzoo.cli.terminal.names import is_run
from alignzoo.contract.errors import AlignzooError, DataError, described
from alignzoo.recipe.registry import Registry
from alignzoo.report.facts import Report, RunFacts, StageLens
from alignzoo.report.tokens import stage_lens


def with_lens(report: Report, limit: int, registry: Registry) -> Report:
    """The report with the first responses of every train stage, from `limit` rows of each.

    A stage that cannot be read is named with the reason among what is missing.
    """
    stages = [(run, s.name) for run in report.runs for s in run.stages if s.kind == "train"]
    said = [_read(run, stage, limit, registry) for run, stage in stages]
    return replace(
        report,
        lens=tuple(one for one in said if isinstance(one, StageLens)),
        lens_rows=limit,
        missing=(*report.missing, *(one for one in said if isinstance(one, str))),
    )


def _read(run: RunFacts, stage: str, limit: int, registry: Registry) -> StageLens | str:
    """What is read of a stage, or why nothing is."""
    folder = Path(run.folder)
    try:
        if not is_run(folder):  # the stage would be taken for the name of a model
            raise DataError("run.json is missing; run the recipe again")
        lens = look(Asked([str(folder / stage)], limit=limit), registry)
        return stage_lens(lens, run.name, stage, limit)
    except Exception as error:  # whatever it is, the other stages are there
        why = str(error) if isinstance(error, AlignzooError) else described(error)
        return f"{run.name}/{stage}: not read token by token: {why}"
