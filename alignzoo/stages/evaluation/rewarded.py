"""One reward on given preference pairs: a scalar head's, or the log-ratio of two language models.

    r(x, y) = head at the last token of prompt and answer, or
    r(x, y) = sum_t log p(y_t | x, y_<t) under `model` minus the same under `over`

Pairs become tokens as a stage that trains on them reads them. Each reward leaves `answers.jsonl`
(every pair with both values) and `scores.json`; its values are kept batch by batch, so that an
interrupted one goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import DataError
from alignzoo.contract.evaluation import Answer, Column, Judge, RewardBenchmark
from alignzoo.contract.types import GroupSample, PairBatch, PairSample, PromptSample, Tokens
from alignzoo.data.ends import end_ids
from alignzoo.data.reader import Embedding
from alignzoo.data.rows import n_tokens, row_from_sample
from alignzoo.data.tokens import Limits, encode_all
from alignzoo.engine.models.bounds import bounds_of
from alignzoo.engine.models.hooked import Listener
from alignzoo.engine.models.load import load_model, load_tokenizer, pad_id_of
from alignzoo.engine.parallel.exchange import everyone
from alignzoo.engine.scoring.measure import sequence_log_ratios, sequence_values
from alignzoo.recipe.blocks import DataSpec, EvaluateSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.rewards import PairRewardSpec
from alignzoo.recipe.spec import JudgeSpec
from alignzoo.stages.context import StageContext
from alignzoo.stages.evaluation.columns import check_columns, summarise
from alignzoo.stages.ids import check_ids
from alignzoo.stages.label import judged
from alignzoo.stages.learner import Learner
from alignzoo.stages.reading import read_items, read_samples
from alignzoo.stages.sharing import shared_out
from alignzoo.store.files import digest_of, digest_of_value, write_json, write_text
from alignzoo.store.records import STATE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Score = Callable[[Sequence[Tokens]], list[float]]
PER_PASS = 64  # answers whose values are kept at once


def run_rewarded(spec: EvaluateSpec, name: str, context: StageContext) -> None:
    """Value both answers of every pair and measure what that says.

    Raises DataError when the data hold no pairs or the models read ids differently, PluginError
    when a column does not have one value per pair.
    """
    benchmark: RewardBenchmark = build_options(
        context.registry.find("benchmark", spec.benchmark), spec.with_
    )
    assert spec.data is not None  # as the recipe's check has it
    reward = spec.rewards[name]
    if reward.judge is not None:
        samples, chosen, rejected = _scored(reward.judge, spec.data, context)
    else:
        samples, chosen, rejected = _read(reward, spec.data, context)
    if not everyone().is_main:
        return
    columns = dict(benchmark.judge_rewards(chosen, rejected))
    check_columns(spec.benchmark, columns, len(samples))
    _write_pairs(samples, chosen, rejected, context)
    write_json(context.folder / "scores.json", _result(spec, columns, samples, context))
    means = {key: sum(x for x in c.values if x is not None) for key, c in columns.items()}
    context.summary({key: total / len(samples) for key, total in means.items()})


def rewards_of(
    reward: PairRewardSpec, samples: Sequence[PairSample], data: DataSpec, context: StageContext
) -> tuple[list[float], list[float]]:
    """A model's rewards of the rejected and of the chosen answers of pairs that are at hand.

    Raises DataError for a pair that cannot be read whole.
    """
    learner, score = _ready(reward, context)
    limits = Limits(learner.max_length(data), too_long="error", ends=learner.ends)
    pairs = encode_all(samples, PairBatch, learner.reader(data), limits)
    if pairs.report.bad:
        raise DataError(f"{context.name}: {pairs.report.bad[0]}")
    values = _values([row for item in pairs.items for row in item.rows], score, context)
    return values[1::2], values[::2]


Valued: TypeAlias = tuple[Sequence[PairSample], list[float], list[float]]


def _read(reward: PairRewardSpec, data: DataSpec, context: StageContext) -> Valued:
    """The pairs that a model reads, as training does, with its rewards of both answers."""
    learner, score = _ready(reward, context)
    limits = Limits(learner.max_length(data), data.max_prompt_length, data.too_long, learner.ends)
    pairs = read_items(data, PairBatch, learner.reader(data), limits, context)
    values = _values([row for item in pairs.items for row in item.rows], score, context)
    samples = [sample for sample in pairs.samples if isinstance(sample, PairSample)]
    return samples, values[::2], values[1::2]


def _scored(chosen: JudgeSpec, data: DataSpec, context: StageContext) -> Valued:
    """All pairs with a judge's scores of both answers."""
    judge: Judge = build_options(context.registry.find("judge", chosen.name), chosen.with_)
    loaded = read_samples(data, context)
    samples = [sample for sample in loaded.samples if isinstance(sample, PairSample)]
    if len(samples) < len(loaded.samples):
        raise DataError(f"{data.name}: holds no pairs; name data with chosen and rejected answers")
    values = judged(judge, [answer for pair in samples for answer in _answers(pair)])
    return samples, values[::2], values[1::2]


def _answers(pair: PairSample) -> list[Answer]:
    prompt = PromptSample(pair.prompt, pair.meta)
    return [Answer(prompt, answer, n_tokens(answer)) for answer in (pair.chosen, pair.rejected)]


def _ready(reward: PairRewardSpec, context: StageContext) -> tuple[Learner, Score]:
    """How the reward's models read text, and how they value it."""
    role = Role(head="lm" if reward.over else "scalar")
    refs = {key: context.model(name) for key, name in reward.models.items()}
    models = {key: _loaded(name, role, context) for key, name in reward.models.items()}
    tokenizer = load_tokenizer(context.registry.hooks, refs["model"])
    bounds = {refs[key]: bounds_of(model) for key, model in models.items()}
    check_ids("model", refs, tokenizer, bounds, context)
    own = bounds[refs["model"]]
    embedding = Embedding(refs["model"].name, own.ids)
    learner = Learner(tokenizer, end_ids(tokenizer, own.ends), bounds, embedding)
    return learner, _score(models, tokenizer, context)


def _loaded(name: str, role: Role, context: StageContext) -> PreTrainedModel:
    ref = context.model(name)
    listener = Listener(lambda model: context.note_unstated(ref), context.note)
    model = load_model(context.registry.hooks, ref, role, listener=listener)
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    model.eval()
    return model


def _score(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    context: StageContext,
) -> Score:
    pad_id = pad_id_of(tokenizer)

    def score(rows: Sequence[Tokens]) -> list[float]:
        with context.arithmetic():
            if "over" in models:
                return sequence_log_ratios(models["model"], models["over"], rows, pad_id)
            return sequence_values(models["model"], rows, pad_id)

    return score


def _values(rows: Sequence[Tokens], score: Score, context: StageContext) -> list[float]:
    """The reward of every row; the longest are read first, all ranks take parts."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    parts = [order[start : start + PER_PASS] for start in range(0, len(order), PER_PASS)]
    file = context.folder / STATE / "rewards.jsonl"
    kept = shared_out(file, parts, lambda part: score([rows[i] for i in part]))
    found: dict[int, float] = {}
    for part, values in zip(parts, kept, strict=True):
        found |= dict(zip(part, values, strict=True))
        context.progress.step(context.name, len(found), len(rows), {}, {})
    return [found[i] for i in range(len(rows))]


def _write_pairs(
    pairs: Sequence[PairSample],
    chosen: Sequence[float],
    rejected: Sequence[float],
    context: StageContext,
) -> None:
    """The chosen answer first, with the rewards of both."""
    lines = []
    for pair, *values in zip(pairs, chosen, rejected, strict=True):
        group = GroupSample(pair.prompt, (pair.chosen, pair.rejected), meta=pair.meta)
        row = row_from_sample(group) | {"scores": values}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(context.folder / "answers.jsonl", "".join(lines))


def _result(
    spec: EvaluateSpec,
    columns: Mapping[str, Column],
    pairs: Sequence[PairSample],
    context: StageContext,
) -> dict[str, Any]:
    """The content of `scores.json`, as of every other evaluation."""
    cls = context.registry.find("benchmark", spec.benchmark)
    section = {
        "benchmark": spec.benchmark,
        "options": spec.with_,
        "plugin": context.registry.owner(cls).identity,
        "pairs": digest_of_value([row_from_sample(pair) for pair in pairs]),
    }
    return {
        "row": {
            "benchmark": spec.benchmark,
            "options": spec.with_,
            "prompts": len(pairs),
            "samples": 1,
            "section": digest_of_value(section),
            "parts": {part: digest_of_value(x) for part, x in section.items()},
            "result": digest_of_value([section, digest_of(context.folder / "answers.jsonl")]),
            "columns": {name: summarise(column, None) for name, column in columns.items()},
        },
        "section": section,
        "values": {name: list(column.values) for name, column in columns.items()},
    }
