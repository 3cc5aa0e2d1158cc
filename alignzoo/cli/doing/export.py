"""`alignzoo export`: a trained model as a plain transformers folder with a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from alignzoo.cli.doing.rounding import DTYPES, round_weights
from alignzoo.cli.terminal.names import TrainedStage, find_stages, written_recipe
from alignzoo.contract.errors import UsageError
from alignzoo.leaderboard import read_leaderboard, render_markdown
from alignzoo.recipe.blocks import DataSpec, Recipe
from alignzoo.store.adapters import adapter_beside
from alignzoo.store.checkpoints import head_in, loader_of
from alignzoo.store.files import read_json
from alignzoo.store.folders import stage_folder
from alignzoo.store.inputs import INITIAL, descent


def export_command(name: str, folder: Path, dtype: str | None, *, adapter: bool = False) -> None:
    """Copy the model of RUN/STAGE (of RUN: its last one), or its adapter, with a README.md.

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
    left = adapter_beside(stage.model) if adapter else None
    if adapter and left is None:
        raise UsageError(f"{stage.label}: learnt all weights; export it without --adapter")
    card = model_card(stage, adapter=adapter)  # before anything is written
    shutil.copytree(left.folder if left else stage.model, folder, dirs_exist_ok=True)
    precision = written_recipe(stage.run)["precision"]
    round_weights(folder, DTYPES[dtype or precision])
    (folder / "README.md").write_text(card, encoding="utf-8")
    loader = (
        "PeftModel.from_pretrained(base, " if adapter else f"{loader_of(folder)}.from_pretrained("
    )
    print(f"{stage.label} is in {folder}: {loader}'{folder}')")


def model_card(stage: TrainedStage, *, adapter: bool = False) -> str:
    """Where the model comes from, as the run recorded it: recipe, data, scores, versions.

    Only what the model descends from is told; a run may have trained others beside it.
    """
    written = written_recipe(stage.run)
    recipe = Recipe.model_validate(written)
    names = descent(stage.name, recipe)
    stages = {spec["name"]: spec for spec in written["stages"] if spec["name"] in names}
    own = stages[stage.name]
    shown = {**written, "stages": list(stages.values())}
    shown.pop("evaluate", None)
    return "\n".join(
        [
            f"---\nlibrary_name: {'peft' if adapter else 'transformers'}\n"
            "tags: [alignzoo, alignment]\n---\n",
            f"# {recipe.name} / {stage.name}\n",
            *([recipe.description + "\n"] if recipe.description else []),
            f"Stage `{stage.name}` ({own.get('algorithm') or own.get('stage')}) of a recipe that "
            f"starts from `{recipe.model}`, seed {recipe.seed}.\n",
            *(
                adapter_usage(str(own.get("policy") or INITIAL), recipe)
                if adapter
                else usage(stage.model)
            ),
            "## Data\n",
            *data_lines(recipe, names, stage.run),
            "\n## Scores\n",
            scores(stage, names),
            "## Recipe\n",
            f"```yaml\n{yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)}```\n",
            "## Versions\n",
            *(f"* {k} {v}" for k, v in read_json(stage.run / "run.json")["versions"].items()),
            "",
        ]
    )


def usage(model: Path) -> Iterator[str]:
    """How the folder is loaded, and how a scalar head is read."""
    yield f"Load it with `transformers.{loader_of(model)}`.\n"
    if head_in(model) == "scalar":
        end = read_json(model / "tokenizer_config.json").get("eos_token")
        yield (
            "It has a scalar head: `model(**batch).logits[:, 0]` is the score of each text, read "
            f"at its last token, which has to be the end-of-sequence token `{end}`; pad on the "
            "right with the folder's own tokenizer.\n"
        )


def adapter_usage(start: str, recipe: Recipe) -> Iterator[str]:
    """How an adapter is loaded, and over what."""
    made = any(stage.name == start for stage in recipe.stages)
    named = f"`{recipe.model if start == INITIAL else start}`"
    base = f"the model of stage {named}, exported too" if made else named
    yield f"A LoRA adapter: `peft.PeftModel.from_pretrained(base, folder)`; its base is {base}.\n"


def data_lines(recipe: Recipe, names: Collection[str], run: Path) -> Iterator[str]:
    """One line per named stage that read data, with the digest of what it read."""
    for index, spec in enumerate(recipe.stages, 1):
        data: DataSpec | None = getattr(spec, "data", None)
        if data is not None and spec.name in names:
            given = data.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"name"})
            settings = {k: v for k, v in given.items() if v not in ({}, False, 0)}
            listed = ", ".join(f"{key}: {json.dumps(value)}" for key, value in settings.items())
            record = read_json(stage_folder(run, index, spec.name) / "stage.json")
            digest = record.get("manifest", {}).get("data", {}).get("data", "")
            yield f"* {spec.name}: `{data.name}` ({listed}) {digest}".rstrip()


def scores(stage: TrainedStage, names: Collection[str]) -> str:
    """What the run measured of the model, of those it descends from and of baselines."""
    if head_in(stage.model) == "scalar":
        return "A scalar head scores texts; it is not evaluated as a language model.\n"
    measured = (stage.run / "scores.jsonl").is_file()
    sections = [
        replace(section, rows=tuple(r for r in section.rows if r.model in names or r.is_baseline))
        for section in (read_leaderboard([stage.run]) if measured else ())
        if any(row.model == stage.name for row in section.rows)
    ]
    if not sections:
        return "This run did not evaluate the model.\n"
    tables = "\n" + render_markdown(sections)
    return f"This model is `{stage.name}`.\n" + tables.replace("\n## ", "\n### ")
