"""Where a run keeps responses that can be looked at."""

from __future__ import annotations

from pathlib import Path

from alignzoo.contract.errors import UsageError
from alignzoo.lens.methods import recipe_of
from alignzoo.store.folders import stage_folder
from alignzoo.store.inputs import data_of


def stored_responses(run: Path, stage: str) -> Path:
    """A file with responses of a stage's model, else with those that it learnt from.

    Raises UsageError for a run that keeps neither.
    """
    found = [*sorted((run / "samples").glob(f"*/{stage}.jsonl")), *_learnt_from(run, stage)]
    for file in found:
        if file.is_file():
            return file
    raise UsageError(
        f"{run}: keeps no responses of stage '{stage}' (no evaluation of it, and no file that it "
        "learnt from); give some with --prompts FILE"
    )


def _learnt_from(run: Path, stage: str) -> list[Path]:
    """The data of another stage, or a file beside the run."""
    stages = recipe_of(run).stages
    numbers = {spec.name: number for number, spec in enumerate(stages, 1)}
    read = [data.name for spec in stages if spec.name == stage for data in data_of(spec).values()]
    inside = [
        stage_folder(run, numbers[name], name) / "data.jsonl" for name in read if name in numbers
    ]
    return [*inside, *(Path(name) for name in read if name not in numbers)]
