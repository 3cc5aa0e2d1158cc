"""`alignzoo lens`: what methods say of every token of some responses, as a page or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignzoo.cli.terminal.names import TrainedStage, find_speaker, find_stages, is_run
from alignzoo.cli.terminal.outputs import check_outputs
from alignzoo.contract.errors import DataError, UsageError, counted
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import PromptSample, Sample
from alignzoo.engine.models.load import pad_id_of
from alignzoo.engine.parallel.exchange import everyone
from alignzoo.lens.answers import Decoding, reader_of, rewards_of, sample_answers
from alignzoo.lens.export import write_json
from alignzoo.lens.gather import Readings, read_method
from alignzoo.lens.methods import (
    Loaded,
    Method,
    bound_method,
    check_tokenizers,
    load_method,
    model_alone,
    stage_method,
)
from alignzoo.lens.page import render_lens
from alignzoo.lens.responses import Answered, answered, check_lengths, read_file, unanswered
from alignzoo.lens.stored import stored_responses
from alignzoo.lens.tokens import Pieces
from alignzoo.lens.view import Lens
from alignzoo.recipe.registry import Registry, load_plugins
from alignzoo.recipe.text import values_of
from alignzoo.store.checkpoints import head_in
from alignzoo.store.files import write_text

MOST = 2  # methods on one page


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    models: Sequence[str]
    run: str | None = None
    stages: Sequence[str] = ()
    prompts: Path | None = None
    limit: int = 200
    signals: Sequence[str] = ()
    decoding: Mapping[str, Any] = field(default_factory=dict)  # of answers to bare prompts
    algorithm: str | None = None  # that models are read as, whatever trained them
    roles: Sequence[str] = ()  # ROLE=MODEL
    options: Sequence[str] = ()  # KEY=VALUE

    @property
    def bound(self) -> dict[str, str]:
        """Role -> model; raises UsageError for what is no such pair."""
        if bad := [word for word in self.roles if "=" not in word]:
            raise UsageError(f"--role {bad[0]}: write ROLE=MODEL")
        return {role: model for role, _, model in (word.partition("=") for word in self.roles)}

    @property
    def options_read(self) -> dict[str, Any]:
        """The algorithm's options, read as in recipes."""
        found: dict[str, Any] = values_of([f"with.{pair}" for pair in self.options]).get("with", {})
        return found


def lens_command(asked: Asked, page: Path | None, data: Path | None) -> None:
    """Read the methods on the responses; write a page, JSON, or both."""
    page = page or (Path("lens.html") if data is None else None)
    check_outputs({"-o": page, "--json": data})
    _check(asked, [file for file in (page, data) if file is not None])
    lens = look(asked, load_plugins())
    drawn = render_lens(lens, asked.signals) if page else ""
    for note in lens.notes:
        print(note, file=sys.stderr)
    if data is not None:
        write_json(lens, data)
        _told(data, lens)
    if page is not None:
        write_text(page, drawn)
        _told(page, lens)


def _check(asked: Asked, files: Sequence[Path]) -> None:
    """Refuse what can be refused before models are loaded."""
    for file in files:
        if not file.parent.is_dir():
            raise UsageError(f"{file}: no folder {file.parent}; make it, or name another file")
    if everyone().size > 1:
        raise UsageError("lens: several processes would all write one page; start one")
    if (asked.roles or asked.options) and asked.algorithm is None:
        raise UsageError("--role and --with belong to a method: give --algorithm NAME too")


def _told(file: Path, lens: Lens) -> None:
    size = file.stat().st_size / 1e6
    rows, tokens = counted(len(lens.rows), "response"), counted(lens.n_tokens, "token")
    print(f"{file}: {rows}, {tokens}, {size:.2g} MB")


def look(asked: Asked, registry: Registry) -> Lens:
    """Everything that is asked for, one method's models in memory at a time."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    methods = list(_methods(asked, registry))
    if not 1 <= len(methods) <= MOST:
        raise UsageError(
            f"lens: {len(methods)} models; name one, or two to compare them on the same responses"
        )
    file = asked.prompts or _stored(asked)
    samples, more = _samples(file, asked.limit)
    _check_decoding(asked, file, samples)
    notes = [f"The first {asked.limit} rows of {file.name}; --limit shows more."] if more else []
    rows: list[Answered] = []
    first: Loaded | None = None
    readings: list[Readings] = []
    for method in methods:
        loaded = load_method(method, registry, device)
        context = min(loaded.contexts.values(), default=None)
        if first is None:
            first = loaded
            if unanswered(samples):
                samples = sample_answers(loaded, samples, Decoding(**asked.decoding), registry)
                notes.append(f"{method.label} answered the prompts of {file.name}.")
            rows = answered(samples, reader_of(loaded), context)
        else:
            names = [m.refs[m.main].name for m in (method, methods[0])]
            check_tokenizers(first.tokenizer, loaded.tokenizer, *names)
            check_lengths(rows, context)
        readings.append(_read(loaded, rows, registry))
    if first is None:
        raise UsageError("lens: no model")
    return Lens.of(rows, readings, Pieces(first.tokenizer), notes)


def _check_decoding(asked: Asked, file: Path, samples: Sequence[tuple[str, Sample]]) -> None:
    """Refuse words about answers that are there already."""
    if asked.decoding and not unanswered(samples):
        given = " and ".join(f"--{key.replace('_', '-')}" for key in asked.decoding)
        raise UsageError(
            f"{given}: for answers to bare prompts, and {file.name} holds answers; take it out, or "
            "give prompts with --prompts"
        )


def _read(loaded: Loaded, rows: Sequence[Answered], registry: Registry) -> Readings:
    rewards, why = rewards_of(loaded, rows, registry)
    found = read_method(loaded, rows, rewards, pad_id_of(loaded.tokenizer))
    return replace(found, notes=(*([why] if why else []), *found.notes))


# --- names -------------------------------------------------------------------------------------


def _methods(asked: Asked, registry: Registry) -> Iterator[Method]:
    if asked.stages and asked.run is None:
        raise UsageError("--stage names a stage of a run: give --run RUN too")
    if not asked.models and asked.run is None:
        raise UsageError("lens: name a model, or a run with --run")
    for name in asked.models:
        yield _method(name, asked, registry)
    if asked.run is None:
        return
    if not is_run(Path(asked.run)):
        raise UsageError(f"--run {asked.run}: no run's folder; name the folder that `run` printed")
    last = _stage(asked.run)
    for stage in asked.stages or ([last.name] if last else []):
        yield stage_method(Path(asked.run), stage, _label(Path(asked.run), stage), registry)


def _stage(name: str) -> TrainedStage | None:
    """The stage of that name; of a run the last that trained a language model, else the last."""
    stages = find_stages(name)
    able = [stage for stage in stages if head_in(stage.model) != "scalar"]
    return next(reversed(able or stages), None)


def _label(run: Path, stage: str) -> str:
    return f"{run.resolve().name}/{stage}"


def _method(name: str, asked: Asked, registry: Registry) -> Method:
    """A stage's own method, the one that is asked for, or the model alone."""
    if asked.algorithm is not None:
        folder, origin = find_speaker(name)
        ref = ModelRef(folder, origin.get("seed", 0))
        roles = {r: ModelRef(find_speaker(m)[0]) for r, m in asked.bound.items()}
        cls = registry.find("algorithm", asked.algorithm)
        label = f"{name} under {asked.algorithm}"
        return bound_method(cls, asked.options_read, ref, roles, label)
    if stage := _stage(name):
        return stage_method(stage.run, stage.name, stage.label, registry)
    label = "/".join(Path(name).parts[-2:])  # as much of a folder's name as tells it from others
    return model_alone(label, ModelRef(find_speaker(name)[0]))


def _stored(asked: Asked) -> Path:
    """The responses of the first run that is named."""
    for name in [*asked.models, *([asked.run] if asked.run else [])]:
        wanted = asked.stages[0] if asked.stages and name == asked.run else None
        if stage := _stage(name):
            return stored_responses(stage.run, wanted or stage.name)
    raise UsageError("lens: nothing to read; give responses or prompts with --prompts FILE")


def _samples(file: Path, limit: int) -> tuple[list[tuple[str, Sample]], bool]:
    """The first rows of a file, and whether there are more; .txt holds a prompt on each line."""
    if not file.is_file():
        raise UsageError(f"--prompts {file}: no such file")
    if file.suffix != ".txt":
        return read_file(file, limit)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 (byte {error.start + 1})") from error
    found: list[tuple[str, Sample]] = [
        (f"{file}:{n}", PromptSample(line)) for n, line in enumerate(lines, 1) if line.strip()
    ]
    if not found:
        raise DataError(f"{file}: no prompts")
    return found[:limit], len(found) > limit
