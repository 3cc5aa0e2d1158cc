"""What can be typed behind `alignzoo report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; several are compared.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The page.  [default: RUN/report.html, or report.html for several]",
        ),
    ] = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Its numbers.  [default: beside the page]")
    ] = None,
    *,
    lens: Annotated[
        int,
        typer.Option(
            min=0, help="Responses of every train stage, token by token; loads its models."
        ),
    ] = 0,
    watch: Annotated[
        bool, typer.Option("--watch", help="Serve the page on this machine while the run goes.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="With --watch.  [default: a free one]")
    ] = None,
) -> None:
    """Show what happened in runs: one page, readable anywhere, and a JSON file with its numbers."""
    from alignzoo.cli.doing.reporting import Wish, report_command

    raise typer.Exit(report_command(runs, Wish(output, as_json, watch, port, lens)))
