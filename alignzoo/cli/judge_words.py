"""What can be typed behind `alignzoo eval-judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate_judge(
    annotations: Annotated[Path, typer.Argument(help="Pairs that several people compared.")],
    *,
    judge: Annotated[str, typer.Option(help="A name from `alignzoo list judges`.")],
    benchmark: Annotated[
        str, typer.Option(help="Whose questions the judge is asked.")
    ] = "pairwise",
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="judge.with.model=NAME, with.orders=one."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pairs.")] = None,
    generators: Annotated[
        Path | None, typer.Option(help="A file that says which models wrote the outputs.")
    ] = None,
    labels: Annotated[
        int | None, typer.Option(min=1, help="People per pair.  [default: what most pairs have]")
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Labels of the judge per pair; bias and variance need two.")
    ] = 1,
    rejudge_failed: Annotated[
        bool, typer.Option("--rejudge-failed", help="Ask anew where no verdict could be read.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Agreement with people, correlation of win rates, biases, price: how good a judge is."""
    from alignzoo.cli.evaluating.judge_quality import Wish, eval_judge_command

    wish = Wish(generators, labels, repeats, rejudge_failed)
    words = options or []
    raise typer.Exit(
        eval_judge_command(annotations, judge, words, benchmark, limit, as_json=as_json, wish=wish)
    )
