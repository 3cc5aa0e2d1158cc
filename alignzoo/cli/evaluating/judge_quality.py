"""`alignzoo eval-judge`: a judge beside the people whose preferences it stands for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from alignzoo.cli.evaluating.measuring import Measurement, evaluation
from alignzoo.cli.terminal.console import Lines, watch
from alignzoo.cli.terminal.screen import print_json, print_table
from alignzoo.contract.datafiles import file_digest
from alignzoo.contract.errors import UsageError
from alignzoo.contract.evaluation import Judge
from alignzoo.contract.progress import Progress
from alignzoo.contract.replies import VERSION, note_on_reasoning
from alignzoo.contract.verdicts import JudgeError
from alignzoo.judging.ask import Patience, Standing
from alignzoo.judging.quality.crossannotations import read_pairs
from alignzoo.judging.quality.examine import Examination, Examined, examine
from alignzoo.judging.quality.figures import (
    HumanPair,
    Quality,
    agreement_interval,
    human_quality,
    longest,
    quality,
)
from alignzoo.recipe.blocks import EvaluateSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry, load_plugins
from alignzoo.store.identity import judge_identities

GET = (
    "`hf download tatsu-lab/alpaca_eval alpaca_farm_human_crossannotations.json "
    "alpaca_farm_human_annotations.json --repo-type dataset --local-dir .` gets AlpacaFarm's"
)
DECIMALS = {"agreement": 2, "price": 2, "seconds": 1, "bias": 2, "variance": 2, "parsed": 0}
PEOPLE, LONGEST = "humans", "longest"
USED = {
    "benchmark",
    "samples",
    "judge",
    "with_",
    "limit",
    "min_parsed",
}  # keys of an evaluation that count here


@dataclass(frozen=True)
class Wish:
    """What is asked beyond the usual."""

    generators: Path | None = None  # the file that names the outputs' generators
    labels: int | None = None  # per pair; None: what most pairs have
    repeats: int = 1  # labels of the judge per pair; bias and variance need two
    again: bool = False  # ask anew where no verdict could be read


def eval_judge_command(
    annotations: Path,
    judge: str,
    options: Sequence[str],
    benchmark: str,
    limit: int | None,
    *,
    as_json: bool,
    wish: Wish = Wish(),
) -> int:
    """Put people's pairs to a judge and print its row beside theirs; the exit status.

    Raises UsageError, RecipeError, DataError or JudgeError with one sentence.
    """
    registry = load_plugins()
    spec = _spec(Measurement((), benchmark, (judge,), None, 1, limit, options, None), registry)
    pairs = _pairs(annotations, wish)[: spec.limit]
    (chosen,) = spec.judge
    asked: Judge = build_options(registry.find("judge", chosen.name), chosen.with_)
    examination = Examination(
        build_options(registry.find("benchmark", spec.benchmark), spec.with_), pairs, wish.repeats
    )
    shown = [[text] for pair in pairs for text in (pair.output_1, pair.output_2)]
    with _watched(chosen.name, as_json) as progress:
        if words := note_on_reasoning(shown):
            progress.note(f"{chosen.name}: {words}")

        def report(standing: Standing) -> None:
            told = {} if standing.cost is None else {"cost": standing.cost}
            told |= {"unread": standing.failed} if standing.failed else {}
            progress.step(chosen.name, standing.done, standing.total, told, {})

        patience = Patience(mute=spec.min_parsed == 0)
        examined = examine(examination, asked, again=wish.again, report=report, patience=patience)
    _check_parsed(examined, spec)
    rows = {
        PEOPLE: human_quality(pairs),
        chosen.name: quality(pairs, examined.labels),
        LONGEST: quality(pairs, longest(pairs)),
    }
    interval = agreement_interval(pairs, examined.labels)
    if as_json:
        (who,) = judge_identities(spec, registry)
        print_json(
            {
                "annotations": {"file": annotations.name, "digest": file_digest(annotations)},
                **_record(spec, examination, who, examined),
                "agreement_interval": interval,
                "rows": {name: _by_title(row) for name, row in rows.items()},
            }
        )
    else:
        _print(rows, pairs, examined, interval)
    return 0


def _spec(wanted: Measurement, registry: Registry) -> EvaluateSpec:
    spec = evaluation(wanted, registry)
    if len(spec.judge) != 1:
        raise UsageError("eval-judge measures one judge at a time")
    if unused := sorted(spec.model_fields_set - USED):
        raise UsageError(f"--set {unused[0]}: eval-judge has no use for it")
    return spec


def _check_parsed(examined: Examined, spec: EvaluateSpec) -> None:
    """A share of verdicts is demanded only where the user says which."""
    share = spec.min_parsed if "min_parsed" in spec.model_fields_set else 0.0
    if examined.parsed < share * examined.judged:
        raise JudgeError(
            f"{examined.parsed} of {examined.judged} replies hold a verdict, fewer than "
            f"min_parsed = {share:g}; every reply is kept, and --rejudge-failed asks again"
        )


def _pairs(annotations: Path, wish: Wish) -> tuple[HumanPair, ...]:
    for path in filter(None, (annotations, wish.generators)):
        if not path.is_file():
            raise UsageError(f"{path}: no such file; {GET}")
    return read_pairs(annotations, wish.labels, wish.generators)


@contextmanager
def _watched(name: str, as_json: bool) -> Iterator[Progress]:
    """Progress of the one piece of work there is; beside JSON it goes to the error stream."""
    errors = Lines(lambda text: print(text, file=sys.stderr, flush=True))
    progress, display = (errors, redirect_stdout(sys.stderr)) if as_json else watch()
    with display:
        progress.stage_started(name, 1, 1)
        yield progress
        progress.stage_finished(name)


def _record(
    spec: EvaluateSpec, examination: Examination, who: Mapping[str, Any], examined: Examined
) -> Mapping[str, Any]:
    """What was measured, and everything that decides the numbers."""
    benchmark, pairs = examination.benchmark, examination.pairs
    return {
        "pairs": len(pairs),
        "labels_per_pair": len(pairs[0].preferences),
        "judge": {**who, "model": examined.model},
        "benchmark": {
            "name": benchmark.name,
            "options": {k: v for k, v in spec.with_.items() if k not in benchmark.file_options},
            "settings": benchmark.settings(),
            "reader": VERSION,
        },
        "repeats": examination.repeats,
        "counts": {
            "judged": examined.judged,
            "parsed": examined.parsed,
            "failed": examined.judged - examined.parsed,
        },
    }


def _by_title(row: Quality) -> dict[str, float | None]:
    return {f.metadata["title"]: getattr(row, f.name) for f in fields(row)}


def _print(
    rows: Mapping[str, Quality],
    pairs: Sequence[HumanPair],
    examined: Examined,
    interval: tuple[float, float] | None,
) -> None:
    print_table(
        ("", *rows),
        [
            (f.metadata["title"], *(_cell(f.name, getattr(row, f.name)) for row in rows.values()))
            for f in fields(Quality)
        ],
    )
    print(
        f"{len(pairs)} pairs with {len(pairs[0].preferences)} labels each; "
        f"{examined.judged} questions judged, {examined.parsed} parsed, "
        f"{examined.judged - examined.parsed} failed."
    )
    if interval is not None:
        low, high = interval
        print(f"Human agreement, 95 % interval over pairs: {low:.2f} to {high:.2f}.")
    elif examined.parsed:
        print("Human agreement: the same on all pairs, so no interval.")


def _cell(name: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.{DECIMALS.get(name, 3)}f}"
