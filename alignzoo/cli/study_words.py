"""What can be typed behind `alignzoo reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignzoo.cli.terminal.stopping import before_work

RUNS = Path("runs/reproduce")


def reproduce(
    study: Annotated[
        str | None,
        typer.Argument(help="A bundled study, its file, or all.  [default: list them]"),
    ] = None,
    *,
    on: Annotated[
        list[str] | None, typer.Option("--on", metavar="WORLD", help="Only this world.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="So many.  [default: what the study says]")
    ] = None,
    first_seed: Annotated[
        int | None, typer.Option(min=0, help="The first.  [default: what the study says]")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One seed.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value in every recipe."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the runs and of what comes of them.")
    ] = RUNS,
    check: Annotated[
        bool, typer.Option("--check", help="Check the study and its recipes; run nothing.")
    ] = False,
) -> None:
    """Run a study's recipes over seeds; write tables, figures, and a verdict for every claim.

    The same command goes on where it was stopped, and runs that are finished are used again.
    """
    with before_work():
        from alignzoo.cli.doing.reproducing import Wish, reproduce_command

        wish = Wish(
            tuple(on or ()), seeds, first_seed, quick, tuple(overrides or ()), output, check
        )
        raise typer.Exit(reproduce_command(study, wish))
