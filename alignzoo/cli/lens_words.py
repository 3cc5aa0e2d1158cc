"""What can be typed behind `alignzoo lens`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def lens(
    models: Annotated[
        list[str] | None, typer.Argument(help="One, or two to compare: RUN/STAGE, folders, names.")
    ] = None,
    *,
    run: Annotated[
        str | None, typer.Option("--run", help="A run: its last trained stage, or --stage.")
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(help="A trained stage of --run; two are compared.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Responses, or prompts that the first model answers: .jsonl, .parquet, .txt.  "
            "[default: responses that the run keeps]"
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Only the first so many rows.")] = 200,
    signal: Annotated[
        list[str] | None, typer.Option(help="What the page opens with; one per model.")
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option(help="Read models as this method, with --role and --with.")
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=MODEL", help="With --algorithm.")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--with", metavar="KEY=VALUE", help="With --algorithm.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="[default: 256]")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0 is greedy.  [default: 1.0]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the answers.  [default: 0]")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page.  [default: lens.html]")
    ] = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write every number there.")
    ] = None,
) -> None:
    """Write a page that shows responses token by token, coloured by any signal of any method."""
    from alignzoo.cli.doing.lens import Asked, lens_command

    words = ("max_new_tokens", max_new_tokens), ("temperature", temperature), ("seed", seed)
    asked = Asked(
        models or [],
        run,
        stage or [],
        prompts,
        limit,
        signal or [],
        {key: x for key, x in words if x is not None},
        algorithm,
        role or [],
        options or [],
    )
    lens_command(asked, output, as_json)
