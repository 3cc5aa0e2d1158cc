"""What can be typed behind `alignzoo reproduce`."""

from __future__ import annotations

from typing import Annotated

import typer


def reproduce(
    study: Annotated[
        str | None,
        typer.Argument(help="A bundled study, its file, or all.  [default: list them]"),
    ] = None,
    *,
    on: Annotated[
        list[str] | None, typer.Option("--on", metavar="WORLD", help="Only this world.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the study and its recipes; run nothing.")
    ] = False,
) -> None:
    """Run a study's recipes over seeds; write tables, figures, and a verdict for every claim."""
    from alignzoo.cli.doing.reproducing import Wish, reproduce_command

    raise typer.Exit(reproduce_command(study, Wish(tuple(on or ()), check)))
