"""What names on the command line stand for: recipes, runs, stages, models."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alignzoo.contract.errors import DataError, UsageError, suggest
from alignzoo.store.checkpoints import head_in
from alignzoo.store.files import read_json
from alignzoo.store.folders import stage_folder
from alignzoo.store.records import check_output

PACKAGE = Path(__file__).resolve().parents[2]


def recipe_folder() -> Path:
    """Where the bundled recipes are: inside an installed package, beside a checked-out one."""
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() else PACKAGE.parent / "recipes"


def bundled_recipes() -> dict[str, Path]:
    """Bundled recipes by name: "dpo", "real/stories_aligndistil"."""
    root = recipe_folder()
    files = sorted(root.rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    names = {path.relative_to(root).with_suffix("").as_posix(): path for path in files}
    return {name: path for name, path in names.items() if not is_study(path)}


def is_study(path: Path) -> bool:
    """Whether a YAML file is a study and no recipe: a study has worlds."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False
    return any(line.startswith("worlds:") for line in lines)


def find_recipe(name: str) -> Path:
    """The file a recipe's name stands for: a path, else a bundled recipe.

    Raises UsageError with a suggestion.
    """
    if Path(name).is_file():
        if is_study(Path(name)):
            raise UsageError(f"{name} is a study; try `alignzoo reproduce {name}`")
        return Path(name)
    if Path(name).is_dir():
        raise UsageError(f"{name} is a folder; name a recipe in it")
    bundled = bundled_recipes()
    wanted = name.removesuffix(".yaml").removeprefix("recipes/")
    if wanted in bundled:
        return bundled[wanted]
    hint = suggest(wanted, bundled) or "; `alignzoo list recipes` prints the bundled ones"
    raise UsageError(f"no recipe '{name}': neither a file nor a bundled recipe{hint}")


@dataclass(frozen=True)
class TrainedStage:
    """A stage of a run that left a model."""

    run: Path
    name: str
    folder: Path

    @property
    def model(self) -> Path:
        """A transformers folder."""
        return self.folder / "model"

    @property
    def label(self) -> str:
        """How tables call it."""
        return f"{self.run.resolve().name}/{self.name}"


def is_run(folder: Path) -> bool:
    """Whether a folder was written by `alignzoo run`."""
    return (folder / "run.json").is_file()


def check_folder_of_runs(folder: Path, option: str) -> None:
    """Refuse to put the tables of several runs over those of one; raises UsageError."""
    if is_run(folder):
        raise UsageError(
            f"{option}: {folder} is the folder of a single run, whose pages it would overwrite; "
            "name another with --output"
        )


def trained_stages(run: Path) -> list[TrainedStage]:
    """The finished stages of a run that left a model, in order.

    The folder may hold stages of another recipe that was run there before; they are not this run's.
    """
    found, own = [], _own_folders(run)
    for folder in sorted((run / "stages").glob("*-*")):
        if own is not None and folder.name not in own:
            continue
        finished = read_json(folder / "stage.json").get("status") == "done"
        if finished and (folder / "model").is_dir():
            found.append(TrainedStage(run, folder.name.partition("-")[2], folder))
    return found


def _own_folders(run: Path) -> set[str] | None:
    """The folders of the stages that the run's recipe names; None when it cannot be read."""
    try:
        recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
        stages = [str(stage["name"]) for stage in recipe["stages"]]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return None
    return {stage_folder(run, index, stage).name for index, stage in enumerate(stages, 1)}


def find_stages(name: str) -> list[TrainedStage]:
    """The trained stages that RUN (all of them) or RUN/STAGE names; none for another name.

    Each is opened: raises DataError when a model's files are not what the stage wrote.

    A stage may also be named by its folder in the run, RUN/stages/01-STAGE. Raises UsageError for
    a run without that stage or without any model.
    """
    path = Path(name)
    if path.parent.name == "stages" and is_run(path.parent.parent):
        path = path.parent.parent / path.name.partition("-")[2]
    if is_run(path):
        stages = trained_stages(path)
        if not stages:
            raise UsageError(f"{name}: no stage of this run has left a model yet")
        return _opened(stages)
    if path.is_dir() or not is_run(path.parent):
        return []
    known = {stage.name: stage for stage in trained_stages(path.parent)}
    if path.name not in known:
        hint = suggest(path.name, known)
        names = f"it has {', '.join(known)}" if known else "it has none yet"
        raise UsageError(f"{path.parent}: no trained stage '{path.name}' ({names}){hint}")
    return _opened([known[path.name]])


def _opened(stages: list[TrainedStage]) -> list[TrainedStage]:
    for stage in stages:
        check_output(stage.folder, "model")
    return stages


def find_speakers(name: str) -> list[TrainedStage]:
    """Those of `find_stages` that can answer; raises UsageError where none of several can."""
    stages = find_stages(name)
    able = [stage for stage in stages if head_in(stage.model) != "scalar"]
    if stages and not able:
        raise UsageError(
            f"{name}: its model has a scalar head, which scores texts and gives no distribution "
            "over tokens; name a language model"
        )
    return able


def find_speaker(name: str) -> tuple[str, Mapping[str, Any]]:
    """The folder or hub name of one language model, and the recipe of the run it comes from.

    A run stands for the last model that it trained, which is told where there are others. What no
    run made has an empty recipe.
    """
    stages = find_speakers(name)
    if len(stages) > 1:
        others = ", ".join(stage.name for stage in stages[:-1])
        told = f"{name}: its last model, '{stages[-1].name}', answers"
        print(f"{told}; name another as {Path(name)}/STAGE (it has {others})", file=sys.stderr)
    if stages:
        return str(stages[-1].model), origin_of(stages[-1])
    check_output(Path(name).parent, Path(name).name)
    return name, {}


def origin_of(stage: TrainedStage) -> dict[str, Any]:
    """The resolved recipe of the run a model comes from."""
    return written_recipe(stage.run)


def written_recipe(run: Path) -> dict[str, Any]:
    """The recipe that a run keeps; DataError when it cannot be read."""
    file = run / "recipe.yaml"
    try:
        return dict(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{file}: damaged ({why}); run the recipe again to rewrite it") from error
