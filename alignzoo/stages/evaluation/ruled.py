"""One model on one benchmark: sample, judge, compare with the baseline, keep every number.

The unit of work is one model, so that a recipe with one more model samples only that one. Each
unit leaves `answers.jsonl` (ids, text and the judge's view of every answer) and `scores.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import DataError
from alignzoo.contract.evaluation import (
    WIN_RATE,
    Answer,
    Benchmark,
    Column,
    Score,
    ScoredBenchmark,
    mean,
)
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import GroupSample, PromptSample, Tokens
from alignzoo.data.rows import n_tokens, row_from_sample, sample_from_row
from alignzoo.data.tokens import prompt_ids
from alignzoo.engine.models.bounds import bounds_by_name, bounds_of
from alignzoo.engine.models.load import pad_id_of
from alignzoo.engine.parallel.exchange import everyone
from alignzoo.engine.scoring.measure import sequence_kl
from alignzoo.recipe.blocks import EvaluateSpec
from alignzoo.recipe.options import build_options
from alignzoo.stages.context import StageContext
from alignzoo.stages.evaluation.columns import check_columns, summarise
from alignzoo.stages.generate import answer_figures
from alignzoo.stages.ids import check_ids
from alignzoo.stages.sampling import Speaker, load_speaker, sample_answers
from alignzoo.stages.sharing import shared_out
from alignzoo.store.files import digest_of, digest_of_value, read_json, write_json, write_text
from alignzoo.store.folders import model_folder
from alignzoo.store.identity import engine_identity, model_digest
from alignzoo.store.records import STATE

Answers = Sequence[Sequence[Answer]]  # by prompt, then by sample
MEASURE_BATCH = 32  # sequences per forward pass, and whose KL is kept at once


def run_evaluation(
    spec: EvaluateSpec, model: str, context: StageContext, baseline: Path | None
) -> None:
    """Measure one model; `baseline` is the finished folder of the model it is compared with.

    Raises DataError when the benchmark has no prompts, PluginError when a column does not have
    one value per prompt.
    """
    benchmark: Benchmark = build_options(
        context.registry.find("benchmark", spec.benchmark), spec.with_
    )
    crew = everyone()
    prompts = crew.from_main(lambda: _prompts(benchmark, spec, context))
    refs = {f"kl({name})": context.model(name) for name in spec.kl_to}
    speaker = load_speaker(context.model(model), context)
    _check_ids(context.model(model), refs, speaker, context)
    sampled = sample_answers(prompts, spec, speaker, context)
    groups = [
        GroupSample(prompt.prompt, responses, meta=prompt.meta)
        for prompt, responses in zip(prompts, sampled, strict=True)
    ]
    answers = _answers(groups)
    measured = _measured(benchmark, answers, spec, baseline) if crew.is_main else {}
    columns = {
        **measured,
        **_kl_columns(spec, model, answers, speaker, context),
    }
    if not crew.is_main:
        return
    check_columns(spec.benchmark, columns, len(prompts))
    _write_answers(groups, _scores(benchmark, answers), context.folder)
    write_json(
        context.folder / "scores.json",
        _result(spec, columns, answers, baseline, context),
    )
    known = {n: [x for x in c.values if x is not None] for n, c in columns.items() if c.better}
    context.summary(answer_figures(sampled) | {n: mean(xs) for n, xs in known.items() if xs})


def _check_ids(
    own: ModelRef, others: Mapping[str, ModelRef], speaker: Speaker, context: StageContext
) -> None:
    hooks = context.registry.hooks
    bounds = {ref: bounds_by_name(hooks, ref, Role()) for ref in others.values()}
    bounds[own] = bounds_of(speaker.model)
    check_ids("model", {"model": own, **others}, speaker.tokenizer, bounds, context)


def _prompts(benchmark: Benchmark, spec: EvaluateSpec, context: StageContext) -> list[PromptSample]:
    prompts = list(islice(benchmark.prompts(context.seed), spec.limit))
    if not prompts:
        raise DataError(f"benchmark '{spec.benchmark}' has no prompts with these options")
    return prompts


def _measured(
    benchmark: Benchmark, answers: Answers, spec: EvaluateSpec, baseline: Path | None
) -> dict[str, Column]:
    """The benchmark's own columns."""
    found = dict(benchmark.measure(answers, read_answers(baseline) if baseline else None))
    if spec.baseline is None:
        found.pop(WIN_RATE, None)  # against nobody it says nothing
    return found


def read_answers(folder: Path) -> Answers:
    """The answers that an earlier evaluation kept."""
    with (folder / "answers.jsonl").open(encoding="utf-8") as file:
        samples = [sample_from_row(json.loads(line)) for line in file]
    return _answers([sample for sample in samples if isinstance(sample, GroupSample)])


def _answers(groups: Sequence[GroupSample]) -> Answers:
    return [
        [Answer(PromptSample(g.prompt, g.meta), r, n_tokens(r)) for r in g.responses]
        for g in groups
    ]


def _scores(benchmark: Benchmark, answers: Answers) -> list[list[Score]] | None:
    """The judge's view of every answer, where the benchmark has one judge for single answers."""
    if not isinstance(benchmark, ScoredBenchmark):
        return None
    judge = benchmark.judge()
    return [judge.score(judge.seen(samples)) for samples in answers]


def _write_answers(
    groups: Sequence[GroupSample], scores: Sequence[Sequence[Score]] | None, folder: Path
) -> None:
    rows = [row_from_sample(group) for group in groups]
    for row, judged in zip(rows, scores or (), strict=False):
        row["scores"] = [score.value for score in judged]
        row["features"] = [dict(score.features) for score in judged]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(folder / "answers.jsonl", "".join(lines))


def _kl_columns(
    spec: EvaluateSpec, model: str, answers: Answers, speaker: Speaker, context: StageContext
) -> dict[str, Column]:
    """KL(model || other) in nats per answer, on the model's own answers, full vocabulary."""
    rows = [
        Tokens(tuple(prompt_ids(samples[0].sample, speaker.reader)), answer.response.ids or ())
        for samples in answers
        for answer in samples
    ]
    found = {name: _kl(model, name, rows, speaker, context) for name in spec.kl_to}
    return {
        f"kl({name})": Column(
            finite_kl(name, _by_prompt(values, spec.samples), context.progress.note),
            f"KL of the model to {name} on the model's own answers, nats per answer",
        )
        for name, values in found.items()
    }


def finite_kl(
    name: str, values: tuple[float, ...], say: Callable[[str], None]
) -> tuple[float | None, ...]:
    """The values; none at all, and a sentence, where one of them is infinite or no number."""
    bad = len(values) - sum(map(math.isfinite, values))
    if not bad:
        return values
    say(
        f"kl({name}) has no figure: it is not finite for {bad} of {len(values)} prompts, where "
        f"{name} gives probability exactly 0 to a token that the model allows"
    )
    return (None,) * len(values)


def _kl(
    model: str, other: str, rows: Sequence[Tokens], speaker: Speaker, context: StageContext
) -> list[float]:
    digests = [
        model_digest(name, context.recipe, context.registry, context.outputs)
        for name in (model, other)
    ]
    if digests[0] == digests[1]:
        return [0.0] * len(rows)
    reference = load_speaker(context.model(other), context).model
    pad_id = pad_id_of(speaker.tokenizer)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    parts = [order[start : start + MEASURE_BATCH] for start in range(0, len(order), MEASURE_BATCH)]

    def measured(part: Sequence[int]) -> list[float]:
        some = [rows[i] for i in part]
        with context.arithmetic():
            return sequence_kl(speaker.model, reference, some, pad_id, MEASURE_BATCH)

    file = context.folder / STATE / f"kl-{model_folder(other)}.jsonl"
    kept = shared_out(file, parts, measured)
    values = dict(zip(order, (x for part in kept for x in part), strict=True))
    return [values[i] for i in range(len(rows))]


def _by_prompt(values: Sequence[float], samples: int) -> tuple[float, ...]:
    """Average the samples of each prompt: the prompt is the unit of the intervals."""
    return tuple(mean(values[i : i + samples]) for i in range(0, len(values), samples))


def _result(
    spec: EvaluateSpec,
    columns: Mapping[str, Column],
    answers: Answers,
    baseline: Path | None,
    context: StageContext,
) -> dict[str, Any]:
    """The content of `scores.json`; `row` goes to the run's `scores.jsonl`.

    It names no model: another recipe may reuse it under another name.
    """
    answers_digest = digest_of(context.folder / "answers.jsonl")
    section = _section(spec, answers, baseline, answers_digest, context)
    theirs = read_json(baseline / "scores.json")["values"] if baseline else {}
    return {
        "row": {
            "benchmark": spec.benchmark,
            "options": spec.with_,
            "prompts": len(answers),
            "samples": spec.samples,
            "section": digest_of_value(section),
            "parts": {part: digest_of_value(x) for part, x in section.items()},
            "result": digest_of_value([section, answers_digest, *_of_models(spec, columns)]),
            "columns": {
                name: summarise(
                    column, theirs.get(name), by_definition=_is_exact(name, column, baseline)
                )
                for name, column in columns.items()
            },
        },
        "section": section,
        "values": {name: list(column.values) for name, column in columns.items()},
    }


def _of_models(spec: EvaluateSpec, columns: Mapping[str, Column]) -> list[list[str]]:
    """Figures that equal answers do not make equal: those that are read from the models."""
    found = (columns[f"kl({name})"].values for name in spec.kl_to)
    return [["" if x is None else f"{x:.6g}" for x in values] for values in found]


def _is_exact(name: str, column: Column, baseline: Path | None) -> bool:
    """Whether a figure is no sample: the baseline against itself, a model's KL to itself."""
    return (name == WIN_RATE and baseline is None) or (
        name.startswith("kl(") and not any(column.values)
    )


def _section(
    spec: EvaluateSpec,
    answers: Answers,
    baseline: Path | None,
    answers_digest: str,
    context: StageContext,
) -> dict[str, Any]:
    """Everything that two results must share to stand in one table: all but the model itself."""
    benchmark = context.registry.find("benchmark", spec.benchmark)
    compared = digest_of(baseline / "answers.jsonl") if baseline else answers_digest
    prompts = [row_from_sample(samples[0].sample) for samples in answers]
    return {
        "benchmark": spec.benchmark,
        "options": spec.with_,
        "plugin": context.registry.owner(benchmark).identity,
        "prompts": digest_of_value(prompts),
        "samples": spec.samples,
        "sampling": spec.sampling.over({}).model_dump(mode="json"),
        "engine": engine_identity(spec.engine, context.registry),
        "baseline": compared if spec.baseline else None,
        "kl_to": {
            name: model_digest(name, context.recipe, context.registry, context.outputs)
            for name in spec.kl_to
        },
    }
