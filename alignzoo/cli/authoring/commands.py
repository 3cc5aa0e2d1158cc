"""What can be typed after `alignzoo new`. Bodies import, so that `--help` stays instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignzoo.cli.terminal.plain import PLAIN

new = typer.Typer(help="Begin a plug-in of your own.", **PLAIN)  # type: ignore[arg-type]

NewName = Annotated[str, typer.Argument(help="What recipes will call it: lower_case.")]
NewFolder = Annotated[
    Path | None, typer.Option("--output", help="A new folder.  [default: alignzoo-NAME]")
]


@new.command("algorithm", short_help="Write a package with a working method.")
def new_algorithm(name: NewName, output: NewFolder = None) -> None:
    """Write a small package with a working method, its recipe, README and test."""
    from alignzoo.cli.authoring.scaffold import new_command

    new_command("algorithm", name, output)


@new.command("judge", short_help="Write a package with a working reward function.")
def new_judge(name: NewName, output: NewFolder = None) -> None:
    """Write a small package with a working judge, its recipe, README and test."""
    from alignzoo.cli.authoring.scaffold import new_command

    new_command("judge", name, output)


@new.command("benchmark", short_help="Write a package with a working benchmark.")
def new_benchmark(name: NewName, output: NewFolder = None) -> None:
    """Write a small package with a working benchmark, its recipe, README and test."""
    from alignzoo.cli.authoring.scaffold import new_command

    new_command("benchmark", name, output)


@new.command("dataset", short_help="Write a package with a working dataset.")
def new_dataset(name: NewName, output: NewFolder = None) -> None:
    """Write a small package with a working dataset, its recipe, README and test."""
    from alignzoo.cli.authoring.scaffold import new_command

    new_command("dataset", name, output)


@new.command("stage", short_help="Write a package with a working stage.")
def new_stage(name: NewName, output: NewFolder = None) -> None:
    """Write a small package with a working stage, its recipe, README and test."""
    from alignzoo.cli.authoring.scaffold import new_command

    new_command("stage", name, output)


@new.command("engine", short_help="Write a package with a working rollout engine.")
def new_engine(name: NewName, output: NewFolder = None) -> None:
    """Write a small package with a working rollout engine, its recipe, README and test."""
    from alignzoo.cli.authoring.scaffold import new_command

    new_command("engine", name, output)
