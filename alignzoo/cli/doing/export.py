"""`alignzoo export`: a trained model as a plain transformers folder with a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from alignzoo.cli.doing.rounding import DTYPES, round_weights
from alignzoo.cli.terminal.names import TrainedStage, find_stages
from alignzoo.contract.errors import UsageError
from alignzoo.leaderboard import read_leaderboard, render_markdown
from alignzoo.store.files import read_json


def export_command(name: str, folder: Path, dtype: str | None) -> None:
    """Copy the model of RUN/STAGE (of RUN: its last one) and describe it in README.md.

    Stages keep float32 weights; they are rounded here alone, to `dtype` or the recipe's precision.
    """
    stages = find_stages(name)
    if not stages:
        raise UsageError(f"{name}: neither a run's folder nor RUN/STAGE of one")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not empty; name a new folder")
    if dtype not in (None, *DTYPES):
        raise UsageError(f"--dtype {dtype}: unknown; there are {', '.join(DTYPES)}")
    stage = stages[-1]
    shutil.copytree(stage.model, folder, dirs_exist_ok=True)
    precision = yaml.safe_load((stage.run / "recipe.yaml").read_text(encoding="utf-8"))["precision"]
    round_weights(folder, DTYPES[dtype or precision])
    (folder / "README.md").write_text(model_card(stage), encoding="utf-8")
    print(f"{stage.label} is in {folder}: AutoModelForCausalLM.from_pretrained('{folder}')")


def model_card(stage: TrainedStage) -> str:
    """Where the model comes from, as the run recorded it: recipe, data, scores, versions."""
    recipe = yaml.safe_load((stage.run / "recipe.yaml").read_text(encoding="utf-8"))
    spec = next(s for s in recipe["stages"] if s["name"] == stage.name)
    return "\n".join(
        [
            "---\nlibrary_name: transformers\ntags: [alignzoo, alignment]\n---\n",
            f"# {recipe['name']} / {stage.name}\n",
            *([recipe["description"] + "\n"] if recipe.get("description") else []),
            f"Stage `{stage.name}` ({spec.get('algorithm') or spec.get('stage')}) of a recipe that "
            f"starts from `{recipe['model']}`, seed {recipe['seed']}.\n",
            "## Data\n",
            *data_lines(recipe, stage.run),
            "\n## Scores\n",
            scores(stage),
            "## Recipe\n",
            f"```yaml\n{yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)}```\n",
            "## Versions\n",
            *(f"* {k} {v}" for k, v in read_json(stage.run / "run.json")["versions"].items()),
            "",
        ]
    )


def data_lines(recipe: dict[str, Any], run: Path) -> Iterator[str]:
    """One line per stage that read data, with the digest of what it read."""
    for index, spec in enumerate(recipe["stages"], 1):
        data = spec.get("data")
        if data:
            settings = {k: v for k, v in data.items() if k != "name" and v not in ({}, False, 0)}
            listed = ", ".join(f"{key}: {json.dumps(value)}" for key, value in settings.items())
            record = read_json(run / "stages" / f"{index:02d}-{spec['name']}" / "stage.json")
            digest = record.get("manifest", {}).get("data", {}).get("data", "")
            yield f"* {spec['name']}: `{data['name']}` ({listed}) {digest}".rstrip()


def scores(stage: TrainedStage) -> str:
    """The run's leaderboard, or a sentence that there is none."""
    if not (stage.run / "scores.jsonl").is_file():
        return "This run evaluated nothing.\n"
    tables = "\n" + render_markdown(read_leaderboard([stage.run]))
    return f"This model is `{stage.name}`.\n" + tables.replace("\n## ", "\n### ")
