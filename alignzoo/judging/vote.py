"""Several judges, one verdict, and how far they agree."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from typing import Literal, TypeAlias

from alignzoo.contract.verdicts import Verdict

Verdicts: TypeAlias = Mapping[str, Verdict]  # by question id
Decision: TypeAlias = Callable[[Verdict], Hashable]
NOTHING_SHARED: Mapping[str, Hashable] = {}


def panel(
    verdicts_by_judge: Sequence[Verdicts],
    how: Literal["majority", "mean"],
    about: Mapping[str, Hashable] = NOTHING_SHARED,
) -> tuple[dict[str, Verdict], float | None]:
    """One verdict per question that any judge has a vote on, and the judges' agreement.

    `about` names what questions are about that hang together, such as both orders of a pair: a
    judge that lacks a verdict on one of them has no vote on the others, because one order alone
    would bring in its love of a position.

    Per question, over the judges that have a vote: "mean" averages values and weights;
    "majority" averages those of the largest group of judges that decide the same, and falls back to
    the mean when two groups are largest. Judges decide the same when they give the same label, or,
    where one gives none, the same side of .5 (values all in [0, 1]: preferences) or the same value
    (grades).

    agreement = #{(question, pair of judges): same decision} / #{(question, pair of judges)} over
    the questions that both judged, by side or value, never by label; None when there are none. It
    is not corrected for chance.
    """
    decision = _decision(verdicts_by_judge)
    combine = _mean if how == "mean" else _majority(decision)
    votes = [_votes(verdicts, about) for verdicts in verdicts_by_judge]
    ids = dict.fromkeys(id for own in votes for id in own)
    found = {id: combine([own[id] for own in votes if id in own]) for id in ids}
    return found, _agreement(verdicts_by_judge, decision)


def _votes(verdicts: Verdicts, about: Mapping[str, Hashable]) -> Verdicts:
    """A judge's verdicts on things of which it lacks none."""
    open_ = {thing for id, thing in about.items() if id not in verdicts}
    return {id: verdict for id, verdict in verdicts.items() if about.get(id, id) not in open_}


def _decision(verdicts_by_judge: Sequence[Verdicts]) -> Decision:
    values = [v.value for verdicts in verdicts_by_judge for v in verdicts.values()]
    return _side if all(0 <= value <= 1 for value in values) else _value


def _side(verdict: Verdict) -> int:
    return (verdict.value > 0.5) - (verdict.value < 0.5)


def _value(verdict: Verdict) -> float:
    return verdict.value


def _mean(verdicts: Sequence[Verdict]) -> Verdict:
    labels = {verdict.label for verdict in verdicts}
    return Verdict(
        statistics.fmean(verdict.value for verdict in verdicts),
        statistics.fmean(verdict.weight for verdict in verdicts),
        labels.pop() if len(labels) == 1 else "",
    )


def _majority(decision: Decision) -> Callable[[Sequence[Verdict]], Verdict]:
    def combine(verdicts: Sequence[Verdict]) -> Verdict:
        labelled = all(verdict.label for verdict in verdicts)
        groups: dict[Hashable, list[Verdict]] = defaultdict(list)
        for verdict in verdicts:
            groups[verdict.label if labelled else decision(verdict)].append(verdict)
        ordered = sorted(groups.values(), key=len, reverse=True)
        tied = len(ordered) > 1 and len(ordered[0]) == len(ordered[1])
        return _mean(verdicts if tied else ordered[0])

    return combine


def _agreement(verdicts_by_judge: Sequence[Verdicts], decision: Decision) -> float | None:
    same = [
        decision(first[id]) == decision(second[id])
        for first, second in combinations(verdicts_by_judge, 2)
        for id in first.keys() & second.keys()
    ]
    return statistics.fmean(same) if same else None
