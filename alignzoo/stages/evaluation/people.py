"""One judge, reward, or the people themselves, on pairs that several people compared.

The columns of `judging/quality/figures.py`, as `alignzoo eval-judge` prints them. A judge that is
asked in words is asked what the block's benchmark words, and its replies are kept as everywhere;
any other reward prefers the output of which it is larger.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import DataError
from alignzoo.contract.evaluation import Column, Estimate, Judge
from alignzoo.contract.types import GroupSample, PairSample, Response
from alignzoo.data.rows import row_from_sample
from alignzoo.engine.parallel.exchange import everyone
from alignzoo.judging.ask import Patience, Standing
from alignzoo.judging.mute import evaluating
from alignzoo.judging.quality.crossannotations import read_pairs
from alignzoo.judging.quality.examine import Examination, examine
from alignzoo.judging.quality.figures import (
    TIE,
    HumanPair,
    Labels,
    Quality,
    agreements,
    agreements_of_people,
    human_quality,
    quality,
)
from alignzoo.recipe.blocks import DataSpec, EvaluateSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.rewards import PEOPLE
from alignzoo.stages.context import StageContext
from alignzoo.stages.evaluation.columns import check_columns, summarise
from alignzoo.stages.evaluation.rewarded import rewards_of
from alignzoo.store.files import digest_of, digest_of_value, write_json, write_text


@dataclass(frozen=True)
class Row:
    """What is said of the pairs, and the columns that it comes to."""

    labels: Labels
    figures: Quality
    agreement: Sequence[float | None]  # of every pair, 0 to 1


def run_people(spec: EvaluateSpec, name: str, context: StageContext) -> None:
    """Hold one row of a block against the people.

    Raises DataError for data without people's preferences, JudgeError when a judge cannot be used.
    """
    assert spec.data is not None  # as the recipe's check has it
    pairs = _pairs(spec.data, context)[: spec.limit]
    row = _row(spec, name, pairs, context)
    if not everyone().is_main:
        return
    columns = _columns(row, pairs)
    check_columns(spec.benchmark, columns, len(pairs))
    _write_pairs(pairs, row.labels, context)
    write_json(context.folder / "scores.json", _result(spec, columns, pairs, context))
    known = {n: c.estimate.value for n, c in columns.items() if c.estimate is not None}
    context.summary({"agreement": row.figures.agreement or 0.0, **known})


def _row(spec: EvaluateSpec, name: str, pairs: Sequence[HumanPair], context: StageContext) -> Row:
    if name == PEOPLE:
        labels = Labels({pair.key: pair.preferences for pair in pairs})
        return Row(labels, human_quality(pairs), agreements_of_people(pairs))
    reward = spec.rewards[name]
    if reward.judge is not None:
        labels = everyone().from_main(partial(_asked, spec, name, pairs, context))
    else:
        samples = [_sample(pair) for pair in pairs]
        one, two = rewards_of(reward, samples, spec.data or DataSpec(name=""), context)
        said = zip(pairs, one, two, strict=True)
        labels = Labels({pair.key: (_label(x, y),) for pair, x, y in said}, 0.0)
    return Row(labels, quality(pairs, labels), agreements(pairs, labels))


def _label(one: float, two: float) -> float:
    return TIE if one == two else 1.0 + (two > one)


def _asked(
    spec: EvaluateSpec, name: str, pairs: Sequence[HumanPair], context: StageContext
) -> Labels:
    """What the judge of a row says when the block's benchmark words the comparison."""
    chosen = spec.rewards[name].judge
    assert chosen is not None  # as its caller has seen
    benchmark = build_options(context.registry.find("benchmark", spec.benchmark), spec.with_)
    judge: Judge = build_options(context.registry.find("judge", chosen.name), chosen.with_)

    def report(standing: Standing) -> None:
        told = {} if standing.cost is None else {"cost": standing.cost}
        context.progress.step(context.name, standing.done, standing.total, told, {})

    examined = examine(
        Examination(benchmark, pairs),
        judge,
        again=context.again,
        report=report,
        patience=Patience(mute=spec.min_parsed == 0),
        remedies=evaluating(context.keys, f"rewards.{name}.judge.with"),
    )
    if examined.parsed < spec.min_parsed * examined.judged:
        raise DataError(
            f"{context.name}: {examined.parsed} of {examined.judged} replies hold a verdict, "
            f"fewer than {context.keys}min_parsed = {spec.min_parsed:g}; every reply is kept, and "
            "--rejudge-failed asks those again"
        )
    return examined.labels


# --- pairs -------------------------------------------------------------------------------------


def _pairs(spec: DataSpec, context: StageContext) -> tuple[HumanPair, ...]:
    """Of a file that people's preferences are published in, a stage, or a plug-in's dataset."""
    first, *others = spec.sources
    if first.name in context.registry.datasets or first.name in context.outputs:
        loaded = context.load(first)
        placed = zip(loaded.samples, loaded.places, strict=True)
        return tuple(_compared(sample, place) for sample, place in placed)
    return read_pairs(Path(first.name), generators=Path(others[0].name) if others else None)


def _compared(sample: object, place: str) -> HumanPair:
    """A group of two answers whose `meta` says what people preferred, and who wrote the second."""
    meta = sample.meta if isinstance(sample, GroupSample) else {}
    said, by = meta.get("preferences"), meta.get("generator")
    if not isinstance(sample, GroupSample) or len(sample.responses) != 2 or not said:
        raise DataError(
            f"{place}: no pair that people compared; it needs two answers and, in its meta, "
            "`preferences`: 1 or 2 of every person (1.5: a tie)"
        )
    one, two = (response.text for response in sample.responses)
    text = sample.prompt if isinstance(sample.prompt, str) else sample.prompt[-1]["content"]
    generators = (str(by),) if by is not None else ()
    return HumanPair(place, str(text), one, two, tuple(map(float, said)), generators, meta)


def _sample(pair: HumanPair) -> PairSample:
    """For models: the second output stands where the chosen answer does."""
    prompt = ({"role": "user", "content": pair.instruction},)
    return PairSample(prompt, Response(pair.output_2), Response(pair.output_1))


# --- columns -----------------------------------------------------------------------------------


def _columns(row: Row, pairs: Sequence[HumanPair]) -> dict[str, Column]:
    """Agreement by pair; of all pairs together, correlations, price and what it falls for."""
    figures = row.figures

    shares = tuple(None if x is None else 100 * x for x in row.agreement)
    return {
        "agreement": Column(shares, "human agreement, percent", better=1, whole=100),
        "price": _whole(pairs, figures.price, "$ per 1000 labels", -1),
        "spearman": _whole(pairs, figures.spearman, "of generators' win rates, by rank", 1),
        "pearson": _whole(pairs, figures.pearson, "of generators' win rates", 1),
        "longer": _whole(pairs, figures.longer, "share of decided pairs with the longer output"),
        "first": _whole(pairs, figures.first, "share that prefers the first output"),
    }


def _whole(pairs: Sequence[HumanPair], value: float | None, doc: str, better: int = 0) -> Column:
    """A figure of all pairs together, which has no values by pair and no interval.

    Resampled pairs give generators' win rates more noise, and so smaller correlations than these.
    """
    nothing = (None,) * len(pairs)
    if value is None:
        return Column(nothing, doc, better, note="cannot be known from these data")
    return Column(nothing, doc, better, Estimate(value, value, value))


def _write_pairs(pairs: Sequence[HumanPair], said: Labels, context: StageContext) -> None:
    """Both outputs, what people preferred and what this row does (1: the first)."""
    lines = []
    for pair in pairs:
        group = GroupSample(
            _sample(pair).prompt, (Response(pair.output_1), Response(pair.output_2))
        )
        labels = {"people": list(pair.preferences), "labels": list(said.of.get(pair.key, ()))}
        row = row_from_sample(group) | labels | {"generators": list(pair.generators)}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(context.folder / "answers.jsonl", "".join(lines))


def _result(
    spec: EvaluateSpec,
    columns: Mapping[str, Column],
    pairs: Sequence[HumanPair],
    context: StageContext,
) -> dict[str, Any]:
    """The content of `scores.json`, as of every other evaluation."""
    cls = context.registry.find("benchmark", spec.benchmark)
    people = [[p.instruction, p.output_1, p.output_2, p.preferences, p.generators] for p in pairs]
    section = {
        "benchmark": spec.benchmark,
        "options": spec.with_,
        "plugin": context.registry.owner(cls).identity,
        "people": digest_of_value(people),
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
