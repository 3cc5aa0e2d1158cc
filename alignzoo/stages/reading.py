"""The data of a stage as tokens, with an account of every row and column."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignzoo.contract.errors import DataError, counted
from alignzoo.contract.types import Batch, PairBatch, PromptSample, RolloutBatch
from alignzoo.data.account import item_lines, prompt_lines, table
from alignzoo.data.mixture import drawn, told
from alignzoo.data.reader import Reader, Rules
from alignzoo.data.samples import Loaded, check_bad
from alignzoo.data.tokens import Encoded, Limits, Remember, encode_all
from alignzoo.data.views import Views, with_views
from alignzoo.engine.parallel.agreement import is_main
from alignzoo.recipe.blocks import DataSpec
from alignzoo.stages.context import StageContext
from alignzoo.stages.tokenised import remembered
from alignzoo.store.files import write_text
from alignzoo.store.identity import implementing


@dataclass(frozen=True)
class Prompts:
    """Prompts to answer, with their ids."""

    samples: tuple[PromptSample, ...]
    ids: tuple[tuple[int, ...], ...]
    places: tuple[str, ...]


def rules_of(spec: DataSpec) -> Rules:
    """How a data block says that texts are read."""
    return Rules(spec.special, spec.template_cuts, spec.learn)


def read_items(
    spec: DataSpec,
    kind: type[Batch],
    reader: Reader,
    limits: Limits,
    context: StageContext,
    views: Views | None = None,
) -> Encoded:
    """The items of a stage's data, with their views; what was not used is told.

    Raises DataError when more rows than `data.max_bad` cannot be used, or more pairs than
    `data.max_equal` have two answers of the same tokens.
    """
    loaded = context.load(spec)
    known = _remembered(spec, loaded, kind, reader, limits, context)
    encoded = encode_all(loaded.samples, kind, reader, limits, loaded.places, known)
    report = encoded.report
    loaded = _with_bad(loaded, report.bad, spec)
    if issubclass(kind, PairBatch) and report.equal > spec.max_equal * report.items:
        raise DataError(
            f"{spec.name}: {report.equal} of {report.items} pairs have the same tokens as chosen "
            f"and rejected answer, more than data.max_equal: {spec.max_equal:g} allows; nothing "
            "can be learnt from them: look at what the chat template or max_length cuts"
        )
    encoded = with_views(encoded, views, reader, limits) if views else encoded
    lines = item_lines(loaded.samples, kind, encoded.report, reader.rules)
    _tell(spec, loaded, lines, context)
    return encoded


def read_prompts(spec: DataSpec, reader: Reader, context: StageContext) -> Prompts:
    """The prompts of a stage's data; what was not used is told.

    Raises DataError as `read_items` does.
    """
    loaded = context.load(spec)
    limits = Limits(sys.maxsize)
    known = _remembered(spec, loaded, RolloutBatch, reader, limits, context)
    made = encode_all(loaded.samples, RolloutBatch, reader, limits, loaded.places, known)
    loaded = _with_bad(loaded, made.report.bad, spec)
    _tell(spec, loaded, prompt_lines(loaded.samples, made.report), context)
    prompts = (PromptSample(s.prompt, s.meta) for s in made.samples)
    return Prompts(tuple(prompts), tuple(item.rows[0].prompt for item in made.items), made.places)


def read_all_prompts(spec: DataSpec, reader: Reader, context: StageContext) -> Prompts:
    """The prompts of all sources in a pass."""
    found = [read_prompts(part, reader, context) for part in spec.sources]
    if not spec.parts:
        return found[0]
    taken = mixed(spec, [len(prompts.ids) for prompts in found], context)
    return Prompts(
        tuple(found[k].samples[i] for k, i in taken),
        tuple(found[k].ids[i] for k, i in taken),
        tuple(found[k].places[i] for k, i in taken),
    )


def mixed(spec: DataSpec, sizes: Sequence[int], context: StageContext) -> list[tuple[int, int]]:
    """(source, item) of everything in a pass over a mixture, one source after the other; told."""
    parts = list(zip(spec.sources, sizes, strict=True))
    taken = [
        drawn(part.name, n, part.weight, f"{context.seed} mixture {k}")
        for k, (part, n) in enumerate(parts)
    ]
    rows = [(p.name, n, p.weight, len(own)) for (p, n), own in zip(parts, taken, strict=True)]
    context.note(told(rows))
    return [(k, i) for k, own in enumerate(taken) for i in own]


def read_samples(spec: DataSpec, context: StageContext) -> Loaded:
    """The samples of a stage's data as they are; rows and columns that were not used are told."""
    loaded = context.load(spec)
    _tell(spec, loaded, [], context)
    return loaded


def _remembered(
    spec: DataSpec,
    loaded: Loaded,
    kind: type[Batch],
    reader: Reader,
    limits: Limits,
    context: StageContext,
) -> Remember:
    def say(text: str) -> None:
        context.note(f"{spec.name}: {text}")

    loaders = implementing(context.registry, "load_tokenizer")
    return remembered(loaded, kind, reader, limits.ends, say, loaders)


def _with_bad(loaded: Loaded, bad: Sequence[str], spec: DataSpec) -> Loaded:
    """What was loaded, with the samples that turned out to be unusable as tokens."""
    every = (*loaded.bad, *bad)
    check_bad(spec.name, every, loaded.read, spec.max_bad)
    return replace(loaded, bad=every)


def _tell(
    spec: DataSpec, loaded: Loaded, lines: Sequence[tuple[str, str]], context: StageContext
) -> None:
    file = context.folder / "bad_rows.txt"
    if loaded.bad and is_main():
        known = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        write_text(file, "\n".join(dict.fromkeys([*known, *loaded.bad])) + "\n")
    text, key = (table(spec.name, loaded, lines, at) for at in (file, Path(file.name)))
    about = f"{counted(loaded.read, 'row')} of {spec.name}"
    context.note_once(text, about, key)
