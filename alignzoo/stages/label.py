"""Pairs from sampled answers: a judge scores them, a rule chooses."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from alignzoo.contract.choosing import Pick
from alignzoo.contract.errors import AlignzooError, DataError, PluginError
from alignzoo.contract.evaluation import Answer, Judge, Score, mean
from alignzoo.contract.rollout import sample_key
from alignzoo.contract.types import GroupSample, PairSample, PromptSample, Sample
from alignzoo.data.rows import n_tokens, row_from_sample
from alignzoo.judging.comparing import ranked
from alignzoo.judging.referee import Values
from alignzoo.recipe.blocks import LabelSpec
from alignzoo.recipe.judges import by_of, choosers_of, is_worded
from alignzoo.recipe.options import build_options
from alignzoo.stages.context import StageContext
from alignzoo.stages.reading import read_samples
from alignzoo.stages.sampling import check_writable
from alignzoo.stages.valuing import valuer_of
from alignzoo.store.files import write_text
from alignzoo.store.parts import done_in_parts
from alignzoo.store.records import STATE

PER_CALL = 256  # groups that a judge is given at once
LONGEST_GAP = 0.1  # of mean lengths; beyond it a method can win by length alone


def run_label(spec: LabelSpec, context: StageContext) -> None:
    """Value every answer of every group and write the pairs to `data.jsonl`.

    Raises DataError when the data has no groups or no pair comes out, PluginError when a judge
    breaks its contract, JudgeError when one cannot be used.
    """
    loaded = read_samples(spec.data, context)
    groups = [_group(s, place) for s, place in zip(loaded.samples, loaded.places, strict=True)]
    choose = choosers_of(spec, context.registry)[spec.choose].picks
    pairs: list[PairSample] = []
    ties = 0
    check_writable(groups)
    found, told = _values(spec, groups, context)
    for index, (group, values) in enumerate(zip(groups, found, strict=True)):
        noise = random.Random(sample_key(context.seed, "label", index))
        known, scores = _judged_part(group, values)
        if len(scores) < 2:
            continue
        picks = choose([response.text for response in known.responses], scores, noise)
        ties += sum(pick.tie for pick in picks)
        pairs += [_pair(known, scores, pick) for pick in picks if not pick.tie]
    if not pairs:
        raise DataError(f"{spec.data.name}: {ties} ties and no pair; sample more answers a prompt")
    write_samples(pairs, context)
    _report(pairs, {"ties": ties, **told}, context)


def _values(
    spec: LabelSpec, groups: Sequence[GroupSample], context: StageContext
) -> tuple[Values, dict[str, float]]:
    """The value of every answer, None where there is no verdict, and figures to tell.

    Some groups go to the judges at once, and what they said is kept in the stage's folder.
    Raises PluginError when a judge breaks its contract, JudgeError when it cannot be used.
    """
    parts = [groups[start : start + PER_CALL] for start in range(0, len(groups), PER_CALL)]
    if is_worded(spec, context.registry):
        return _asked(spec, parts, context)
    (chosen,) = spec.judges
    judge: Judge = build_options(context.registry.find("judge", chosen.name), chosen.with_)
    wins = by_of(spec, context.registry) == "wins"

    def values(part: Sequence[GroupSample]) -> Values:
        answers = [_answers(group) for group in part]
        if wins:
            return ranked(judge, answers)
        rest = iter(judged(judge, [answer for group in answers for answer in group]))
        return [[next(rest) for _ in group] for group in answers]

    kept = done_in_parts(context.folder / STATE / "scores.jsonl", parts, values)
    return [own for part in kept for own in part], {}


def _asked(
    spec: LabelSpec, parts: Sequence[Sequence[GroupSample]], context: StageContext
) -> tuple[Values, dict[str, float]]:
    valuer, values = valuer_of(spec, context), list[list[float | None]]()
    total = sum(map(len, parts))
    try:
        for part in parts:
            values += valuer([_answers(group) for group in part]).values
            context.progress.step(context.name, len(values), total, {}, {})
    finally:
        valuer.close()
    said = valuer.total
    cost = {} if said.cost is None else {"cost": said.cost}
    return values, {"judged": said.judged, "failed": said.judged - said.parsed, **cost}


def _judged_part(
    group: GroupSample, values: Sequence[float | None]
) -> tuple[GroupSample, list[float]]:
    """The answers that have a value; those without one stand in no pair."""
    kept = [(r, x) for r, x in zip(group.responses, values, strict=True) if x is not None]
    return replace(group, responses=tuple(r for r, _ in kept)), [x for _, x in kept]


def _answers(group: GroupSample) -> list[Answer]:
    sample = PromptSample(group.prompt, group.meta)
    return [Answer(sample, response, n_tokens(response)) for response in group.responses]


def judged(judge: Judge, answers: Sequence[Answer]) -> list[float]:
    """The judge's values; PluginError when it raises or breaks its contract."""
    try:
        scores = list(judge.score(judge.seen(answers)))
    except AlignzooError:
        raise
    except Exception as error:  # a stranger's code may raise anything
        raise PluginError(f"judge '{judge.name}': {type(error).__name__}: {error}") from error
    sound = [isinstance(score, Score) and math.isfinite(score.value) for score in scores]
    if len(scores) != len(answers) or not all(sound):
        raise PluginError(
            f"judge '{judge.name}' must return one finite score per answer; "
            f"it returned {len(scores)} for {len(answers)}, {sound.count(False)} of them unusable"
        )
    return [score.value for score in scores]


def write_samples(samples: Sequence[Sample], context: StageContext) -> None:
    """Write samples to the stage's `data.jsonl` at once."""
    lines = (json.dumps(row_from_sample(s), ensure_ascii=False) + "\n" for s in samples)
    write_text(context.folder / "data.jsonl", "".join(lines))


def _group(sample: Sample, place: str) -> GroupSample:
    if isinstance(sample, GroupSample) and len(sample.responses) > 1:
        return sample
    raise DataError(
        f"{place}: label needs several answers per prompt; take the data of a generate stage with "
        "samples: 2 or more, or rows with a list of `responses`"
    )


def _pair(group: GroupSample, scores: Sequence[float], pick: Pick) -> PairSample:
    chosen, rejected = pick.chosen, pick.rejected
    judged = {"score_chosen": scores[chosen], "score_rejected": scores[rejected]}
    return PairSample(
        group.prompt,
        group.responses[chosen],
        group.responses[rejected],
        {**group.meta, **judged},
    )


def _report(pairs: Sequence[PairSample], told: Mapping[str, float], context: StageContext) -> None:
    chosen = mean([n_tokens(pair.chosen) for pair in pairs])
    rejected = mean([n_tokens(pair.rejected) for pair in pairs])
    context.summary(
        {
            "pairs": len(pairs),
            **told,
            "length_chosen": chosen,
            "length_rejected": rejected,
            "score_margin": mean(
                [pair.meta["score_chosen"] - pair.meta["score_rejected"] for pair in pairs]
            ),
        }
    )
    if abs(chosen - rejected) > LONGEST_GAP * (chosen + rejected) / 2:
        context.progress.note(
            f"{context.name}: chosen answers have {chosen:.1f} tokens, rejected {rejected:.1f}: "
            "a model can learn the length instead of the preference; "
            "choose a judge that does not care about length"
        )
