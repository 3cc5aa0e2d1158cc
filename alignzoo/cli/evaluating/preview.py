"""`alignzoo eval --dry-run`: the first questions as the judge would see them, and what all cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from alignzoo.cli.terminal.screen import print_json, print_table
from alignzoo.contract.errors import UsageError
from alignzoo.contract.evaluation import Answer
from alignzoo.contract.types import PromptSample, Response
from alignzoo.contract.verdicts import AskedJudge, JudgedBenchmark, Question, Usage
from alignzoo.judging.outputs import answered, match, read_outputs
from alignzoo.recipe.blocks import EvaluateSpec, Recipe
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.store.inputs import evaluated_models

SHOWN = 2  # questions printed in full
CHARACTERS = 4  # per token: a rule of thumb for English, good enough for a price
UNKNOWN = "(the model's answer)"
HEAD = ("model", "questions", "prompt tokens", "reply tokens at most", "cost at most")


def preview_command(
    recipe: Recipe, registry: Registry, labels: Mapping[str, str], *, as_json: bool = False
) -> int:
    """Print the first questions, and counts and cost per model; asks and writes nothing."""
    (spec,) = recipe.evaluate
    benchmark = build_options(registry.find("benchmark", spec.benchmark), spec.with_)
    if not isinstance(benchmark, JudgedBenchmark):
        raise UsageError(f"--dry-run: {spec.benchmark} asks no judge; it costs nothing")
    prompts = list(islice(benchmark.prompts(recipe.seed), spec.limit))
    rows: list[tuple[str, ...]] = []
    first: list[Question] = []
    for model in evaluated_models(spec, recipe, registry):
        if benchmark.compares and model == spec.baseline:
            continue
        asked = list(_questions(model, spec, benchmark, prompts))
        first = first or asked[:SHOWN]
        rows.append((labels.get(model, model), *_figures(asked, spec, registry)))
    if as_json:
        shown = [{"id": q.id, "messages": q.messages} for q in first]
        print_json({"questions": shown, "models": [dict(zip(HEAD, r, strict=True)) for r in rows]})
        return 0
    _show(first)
    print_table(HEAD, rows)
    print(
        f"Tokens are estimated at {CHARACTERS} characters each; an answer that does not exist yet "
        "counts as a few words. Nothing was asked and nothing written."
    )
    return 0


def _questions(
    model: str, spec: EvaluateSpec, benchmark: JudgedBenchmark, prompts: Sequence[PromptSample]
) -> Iterator[Question]:
    prompts = _answered(model, spec, prompts)
    baseline: Sequence[Answer] | None = None
    if spec.baseline is not None:
        baseline = _answers(spec.baseline, benchmark, prompts)
    elif benchmark.compares:
        baseline = benchmark.baseline_answers(prompts)
        if baseline is None:
            raise UsageError(f"{spec.benchmark} compares two models; name the other by --baseline")
    return benchmark.questions(_answers(model, benchmark, prompts), baseline)


def _answered(
    model: str, spec: EvaluateSpec, prompts: Sequence[PromptSample]
) -> Sequence[PromptSample]:
    """The prompts that count: all, unless files of outputs may leave some out."""
    files = [Path(name) for name in (model, spec.baseline) if spec.partial and name]
    known = [set(answered(read_outputs(f), prompts)) for f in files if f.is_file()]
    return [p for n, p in enumerate(prompts) if all(n in numbers for numbers in known)]


def _answers(
    model: str, benchmark: JudgedBenchmark, prompts: Sequence[PromptSample]
) -> list[Answer]:
    """The answers of an outputs file; of a model, stand-ins that differ between models."""
    if Path(model).is_file():
        return match(read_outputs(Path(model)), prompts, model)
    unknown = Response(f"{UNKNOWN[:-1]}: {model})")
    return [
        Answer(p, unknown, 0, tuple(unknown for _ in benchmark.later_turns(p))) for p in prompts
    ]


def _show(questions: Sequence[Question]) -> None:
    for question in questions:
        print(f"--- question {question.id}")
        for message in question.messages:
            print(f"[{message['role']}]\n{message['content']}\n")


def _figures(
    questions: Sequence[Question], spec: EvaluateSpec, registry: Registry
) -> tuple[str, str, str, str]:
    length = sum(len(m["content"]) for q in questions for m in q.messages) // CHARACTERS
    replies = sum(question.decoding.max_tokens for question in questions)
    judges = [build_options(registry.find("judge", j.name), j.with_) for j in spec.judge]
    asked = [judge for judge in judges if isinstance(judge, AskedJudge)]
    costs = [judge.cost(Usage(length, replies)) for judge in asked]
    known = [cost for cost in costs if cost is not None]
    cost = f"{sum(known):.2f}" if len(known) == len(costs) else "unknown: the judge has no prices"
    n = len(questions)
    return f"{n * len(judges):,}", f"{length * len(asked):,}", f"{replies * len(asked):,}", cost
