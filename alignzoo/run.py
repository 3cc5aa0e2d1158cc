"""A recipe's work, piece by piece, in one folder that can be stopped and started at any time.

    runs/<name>-<hash>/
      recipe.yaml   the recipe with every default and override; source.yaml: as it was written
      run.json      versions, times, and how far every piece has come
      stages/01-sft/            model/ or data.jsonl, stage.json, metrics.jsonl, timing.jsonl,
                                logged_samples.jsonl
      evaluations/01-name/sft/  answers.jsonl, scores.json, stage.json
      samples/01-name/sft.jsonl the answers of that model
      scores.jsonl, leaderboard.md

A piece is a stage, or one model on one benchmark. With several ranks, rank 0 decides and writes;
all of them train, sample and measure. What asks judges, and plug-ins' stages, is rank 0's alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from alignzoo.contract.progress import Progress, Silent
from alignzoo.engine.parallel.agreement import is_main
from alignzoo.engine.parallel.environment import refuse_unheeded, unread_config
from alignzoo.engine.parallel.exchange import as_one, everyone
from alignzoo.engine.parallel.quiet import silence_libraries
from alignzoo.judging.outputs import match, read_outputs
from alignzoo.launch.worker import earlier_failure
from alignzoo.leaderboard import Section, read_leaderboard, render_markdown
from alignzoo.plan.ahead import check_ahead, check_judges
from alignzoo.plan.standing import standings
from alignzoo.recipe.blocks import GenerateSpec, Recipe, TrainSpec
from alignzoo.recipe.observers import Observers, declared_metrics, observers_for
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.stages import run_stage
from alignzoo.stages.context import StageContext
from alignzoo.stages.evaluation.kinds import measure
from alignzoo.store.belonging import check_models
from alignzoo.store.files import read_json, write_text
from alignzoo.store.folders import evaluation_folder, model_folder, resolved, stage_folder
from alignzoo.store.identity import evaluation_identity, hub_commit, stage_identity
from alignzoo.store.inputs import (
    check_prompts,
    evaluated_models,
    measured_models,
    model_ref,
    models_of,
)
from alignzoo.store.presence import fetch_config, require_inputs
from alignzoo.store.records import (
    STATE,
    Identity,
    adopt,
    begin,
    changed_inputs,
    clear_state,
    find,
    finish,
    publish,
    resumable,
    why_again,
)
from alignzoo.store.runs import forget, note_piece, note_run, writing
from alignzoo.store.sizes import check_kinds
from alignzoo.store.verdicts import lacks_verdicts

LOGS_OF_TRAINING = {STATE, "metrics.jsonl", "timing.jsonl", "logged_samples.jsonl"}


@dataclass(frozen=True)
class RunResult:
    """Where everything is, and the leaderboard's tables."""

    folder: Path
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class How:
    """What a run does otherwise than usual."""

    again: bool = False  # ask judges anew what they answered without a verdict
    fresh: bool = False  # delete first what the folder holds of an earlier run
    labels: Mapping[str, str] = field(default_factory=dict)  # model -> its name in tables
    alone: bool = False  # one `evaluate` block that a command line wrote; errors name its keys
    when_done: Callable[[], None] | None = None  # before those who watch are told of the end


USUAL = How()


@dataclass(frozen=True)
class Run:
    """What all pieces of a run share."""

    recipe: Recipe
    registry: Registry
    folder: Path
    progress: Progress
    total: int
    how: How = USUAL
    observers: Observers | None = None
    told: dict[str, str] = field(default_factory=dict)  # what is said once -> the piece that did

    def label(self, model: str) -> str:
        """How tables call a model."""
        return self.how.labels.get(model, model)

    def keys(self, number: int) -> str:
        """How `--set` reaches the keys of an `evaluate` block, by its number from 1."""
        return "" if self.how.alone else f"evaluate.{number - 1}."


@dataclass(frozen=True)
class Piece:
    """One unit of work that is done, reused or resumed as a whole."""

    name: str
    index: int  # from 1
    folder: Path
    identity: Identity
    work: Callable[[StageContext], None]
    trains: bool = False  # resumes from its own checkpoints
    shared: bool = True  # all ranks work; else rank 0, and the others wait
    labels: Mapping[str, Any] = field(default_factory=dict)  # names in its row of scores.jsonl
    keys: str = ""  # where its block stands in the recipe


def run_recipe(
    recipe: Recipe,
    source: str,
    registry: Registry,
    folder: Path,
    progress: Progress,
    how: How = USUAL,
) -> RunResult:
    """Bring every stage and evaluation of a recipe to its end and fold the scores.

    `source` is the recipe's text as written. Raises what the pieces raise, after `run.json` says
    how far the run came; the same call goes on from there.
    """
    # Of devices: when training starts.
    refuse_unheeded(os.environ, recipe.precision, 0, recipe.parallel.strategy)
    measured = sum(len(evaluated_models(e, recipe, registry)) for e in recipe.evaluate)
    total = len(recipe.stages) + measured
    voice = progress if is_main() else Silent()
    observers = observers_for(recipe, registry, voice.note)
    run = Run(recipe, registry, folder, voice, total, how, observers)
    with ExitStack() as held:
        as_one(partial(_hold, run, source, held))
        outputs: dict[str, Path] = {}
        for piece in stage_pieces(run, outputs):
            settle(piece, run, outputs)
            outputs[piece.name] = piece.folder
        rows = [_evaluated(piece, run, outputs) for piece in evaluation_pieces(run, outputs)]
        sections = _leaderboard(run.folder, rows) if is_main() and rows else ()
    return RunResult(folder, sections)


def _hold(run: Run, source: str, held: ExitStack) -> None:
    """On the rank that writes, take the run's folder till `held` lets go, and look at the files."""
    if not is_main():
        return
    plugins = [plugin.identity for plugin in run.registry.plugins]
    ended = partial(_ended, run)
    held.enter_context(writing(run.folder, run.recipe, source, plugins, ended))
    if run.how.fresh:
        forget(run.folder)
    if unread := unread_config(os.environ):
        run.progress.note(unread)
    require_inputs(run.recipe, run.registry)
    check_prompts(run.recipe)
    check_kinds(run.recipe, run.registry)
    _check_files(run)
    known = standings(run.recipe, run.registry, run.folder)
    check_ahead(run.recipe, run.registry, known)
    check_judges(run.recipe, run.registry, known)
    metrics = declared_metrics(run.recipe, run.registry)
    _tell(run, "on_run_start", recipe=resolved(run.recipe), metrics=metrics)


def _tell(run: Run, hook: str, **facts: Any) -> None:
    """Call an observing hook, on the rank that writes."""
    if is_main() and run.observers is not None:
        run.observers.tell(hook, run=run.folder, **facts)


def _check_files(run: Run) -> None:
    """Look at the models' folders, the benchmarks' files and all files of outputs now: what is
    wrong with one must not show after training, or after a judge was paid for another.
    """
    check_models(run.recipe, run.registry, {})
    stages = {stage.name for stage in run.recipe.stages}
    for number, spec in enumerate(run.recipe.evaluate, 1):
        benchmark = build_options(run.registry.find("benchmark", spec.benchmark), spec.with_)
        benchmark.settings()
        models = evaluated_models(spec, run.recipe, run.registry)
        named = [m for m in models if m not in stages and m not in spec.rewards]
        files = [name for name in named if Path(name).is_file()]
        found = {name: read_outputs(Path(name)) for name in files}
        if files and not spec.partial:
            prompts = list(islice(benchmark.prompts(run.recipe.seed), spec.limit))
            for name, outputs in found.items():
                match(outputs, prompts, run.label(name), run.keys(number))


def stage_pieces(run: Run, outputs: Mapping[str, Path]) -> Iterator[Piece]:
    """The stages in order; each is made when the ones before it are in `outputs`."""
    for index, spec in enumerate(run.recipe.stages, 1):
        _fetch_revisions(models_of(spec).values(), run, outputs)
        yield Piece(
            name=spec.name,
            index=index,
            folder=stage_folder(run.folder, index, spec.name),
            identity=stage_identity(spec, run.recipe, run.registry, outputs),
            work=partial(run_stage, spec),
            trains=isinstance(spec, TrainSpec),
            shared=isinstance(spec, TrainSpec | GenerateSpec),
        )


def evaluation_pieces(run: Run, outputs: Mapping[str, Path]) -> Iterator[Piece]:
    """One model on one benchmark after the other, each block's baseline first."""
    index = len(run.recipe.stages)
    for number, spec in enumerate(run.recipe.evaluate, 1):
        folder = evaluation_folder(run.folder, number, spec)
        for model in evaluated_models(spec, run.recipe, run.registry):
            index += 1
            behind = measured_models(spec, model).values()
            _fetch_revisions([*behind, *spec.kl_to], run, outputs)
            has_baseline = spec.baseline is not None and model != spec.baseline
            baseline = folder / model_folder(str(spec.baseline)) if has_baseline else None
            yield Piece(
                name=f"{spec.benchmark}: {run.label(model)}",
                index=index,
                folder=folder / model_folder(model),
                identity=evaluation_identity(spec, model, run.recipe, run.registry, outputs),
                work=partial(measure, spec, model, baseline),
                keys=run.keys(number),
                labels={
                    "model": run.label(model),
                    "baseline": spec.baseline and run.label(spec.baseline),
                    "is_baseline": model == spec.baseline,
                },
            )


def settle(piece: Piece, run: Run, outputs: Mapping[str, Path]) -> None:
    """Reuse, resume or do a piece; afterwards its folder is finished on every rank.

    With several ranks, what one of them raises all raise; training alone has exchanges of its own.
    """
    place, crew = (piece.name, piece.index, run.total), everyone()
    if as_one(lambda: crew.from_main(lambda: _reused(piece, run))):
        run.progress.stage_reused(*place)
        _note(run, piece, status="reused")
        _tell_end(run, piece, reused=True)
        return
    run.progress.stage_started(*place)
    _note(run, piece, status="running")
    start = time.monotonic()
    work = partial(_work, piece, run, outputs)
    if piece.trains:
        work()
    elif piece.shared:
        as_one(work)
    else:
        as_one(lambda: crew.from_main(work))
    as_one(lambda: crew.from_main(lambda: finish(piece.folder, piece.identity)))
    seconds = round(time.monotonic() - start, 1)
    _note(run, piece, status="done", seconds=seconds)
    run.progress.stage_finished(piece.name)
    _tell_end(run, piece, reused=False)


def _tell_end(run: Run, piece: Piece, *, reused: bool) -> None:
    facts = {"stage": piece.name, "folder": piece.folder, "reused": reused}
    _tell(run, "on_stage_end", **facts)


def _work(piece: Piece, run: Run, outputs: Mapping[str, Path]) -> None:
    import torch

    silence_libraries()
    if run.recipe.threads is not None:
        torch.set_num_threads(run.recipe.threads)
    piece.work(_context(piece, run, outputs))


def _note(run: Run, piece: Piece, **entry: Any) -> None:
    if is_main():
        note_piece(run.folder, piece.name, **entry)


def _reused(piece: Piece, run: Run) -> bool:
    """Whether the work is found finished; else the folder is made ready for it."""
    if why := why_again(piece.folder, piece.identity):
        run.progress.note(f"{piece.name}: {why}")
    found = find(piece.folder, piece.identity)
    if found and run.how.again and lacks_verdicts(found):
        begin(piece.folder, piece.identity)
        return False
    if found and found != piece.folder:
        if adopt(found, piece.folder, piece.identity):
            run.progress.note(f"{piece.name}: taken from {found}")
        else:
            run.progress.note(f"{piece.name}: {found} went away while it was taken; done here")
            found = None
    if found is None:
        _begin(piece, run)
        return False
    clear_state(piece.folder)
    publish(piece.folder, piece.identity)
    return True


def _begin(piece: Piece, run: Run) -> None:
    """Make the folder ready: what an interrupted try kept of the same work stays."""
    changed = changed_inputs(piece.folder, piece.identity)
    if changed:
        run.progress.note(f"{piece.name}: done again, other {', '.join(changed)} than last time")
    if not resumable(piece.folder, piece.identity):
        begin(piece.folder, piece.identity)
        return
    how = "from its last checkpoint" if piece.trains else "with what it has kept"
    run.progress.note(f"{piece.name}: goes on {how}")
    begin(piece.folder, piece.identity, LOGS_OF_TRAINING if piece.trains else {STATE})


def _context(piece: Piece, run: Run, outputs: Mapping[str, Path]) -> StageContext:
    return StageContext(
        recipe=run.recipe,
        registry=run.registry,
        run=run.folder,
        folder=piece.folder,
        name=piece.name,
        index=piece.index,
        total=run.total,
        outputs=dict(outputs),
        progress=run.progress,
        again=run.how.again,
        observers=run.observers,
        told=run.told,
        keys=piece.keys,
    )


def _evaluated(piece: Piece, run: Run, outputs: Mapping[str, Path]) -> dict[str, Any]:
    """The piece's row of `scores.jsonl`."""
    settle(piece, run, outputs)
    if is_main():
        samples = run.folder / "samples" / piece.folder.parent.name / f"{piece.folder.name}.jsonl"
        write_text(samples, (piece.folder / "answers.jsonl").read_text(encoding="utf-8"))
    row = read_json(piece.folder / "scores.json")["row"]
    return {**piece.labels, **row, "identity": piece.identity.digest}


def _leaderboard(folder: Path, rows: list[dict[str, Any]]) -> tuple[Section, ...]:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(folder / "scores.jsonl", "".join(lines))
    sections = tuple(read_leaderboard([folder]))
    write_text(folder / "leaderboard.md", render_markdown(sections))
    return sections


def _fetch_revisions(names: Iterable[str], run: Run, outputs: Mapping[str, Path]) -> None:
    """Learn the commits of hub models before they enter an identity."""
    for name in names:
        ref = model_ref(name, run.recipe, outputs)
        if ref.name.count("/") == 1 and not ref.path.exists() and not hub_commit(ref):
            fetch_config(ref)  # a plug-in may know the name; loading says what is wrong otherwise


def _ended(run: Run, error: BaseException | None) -> None:
    """Tell the watching plug-ins, and the run's reader who failed: another worker, or they."""
    if error is not None and (first := earlier_failure(error)):
        note_run(run.folder, status="failed", error=first.what, worker=first.rank)
    if error is None and run.how.when_done is not None:
        run.how.when_done()
    if run.observers is None:
        return
    _tell(run, "on_run_end", error=error)
    run.observers.total()
    if run.observers.failures:
        note_run(run.folder, failed_hooks=dict(run.observers.failures))
