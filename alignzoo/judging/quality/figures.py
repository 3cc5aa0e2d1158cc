"""How good a judge is, measured on pairs that several people judged too.

Every definition is that of alpaca_eval 0.6.6 (`analyze_evaluators`, the columns of its table of
judges). A label l says which output is better: 1 the first, 2 the second, between them how sure,
1.5 (in old files 0) a tie. H is the set of pairs, h_1..h_n the people's labels of one pair,
l_1..l_m those of a judge that was asked m times.

    b(labels)         their mode; of several modes one, drawn; their median if one is no 1, 1.5, 2
    human agreement   100 mean_i (1 - mean_H |l_i - b(h)|)
    bias              100 mean_H |b(l) - b(h)|                         needs m > 1
    variance          100 mean_i mean_H |l_i - b(l without l_i)|       needs m > 1

The people's own row is one of them against the others: 100 minus their variance. Correlations are
between the generators' win rates by the judge and by the people. Nothing here hides a missing
label: it is in no mean, and `parsed` counts the labels there are.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from alignzoo.contract.evaluation import bootstrap, honest, mean

TIE = 1.5
DISCRETE = frozenset({1.0, TIE, 2.0})
LONGER = 30  # characters; a smaller difference does not make an output the longer one
PEOPLE_PRICE = 0.3  # $ per label, what AlpacaFarm paid
PEOPLE_SECONDS = 9.2 * 60 / 15  # per label: fifteen took them 9.2 minutes
_DRAW_SEED = 123  # of the official program

_LIST_ITEM = re.compile(r"^\s*(?:[*•-]|\d+[.)]|[a-zA-Z][.)]\s)\W*\w", re.MULTILINE)


@dataclass(frozen=True)
class HumanPair:
    """Two outputs for one instruction, and what people said about them."""

    key: str  # unique in its file
    instruction: str
    output_1: str
    output_2: str
    preferences: tuple[float, ...]  # one label per person, each in [1, 2]
    generators: tuple[str, ...] = ()  # who wrote output_2, for the correlations
    meta: Mapping[str, Any] = field(default_factory=dict)  # what a judge must know of the prompt


@dataclass(frozen=True)
class Labels:
    """What one judge said: the labels of each pair that could be read, in the order asked."""

    of: Mapping[str, tuple[float, ...]]  # by the key of the pair
    price: float | None = None  # per label; None: not known
    seconds: float | None = None  # per label, as the user waited


@dataclass(frozen=True)
class Quality:
    """The columns of the official table, under its names. None: cannot be known from these data."""

    agreement: float | None = field(metadata={"title": "Human agreement"})  # percent
    price: float | None = field(metadata={"title": "Price [$/1000 examples]"})
    seconds: float | None = field(metadata={"title": "Time [seconds/1000 examples]"})
    spearman: float | None = field(metadata={"title": "Spearman corr."})
    pearson: float | None = field(metadata={"title": "Pearson corr."})
    bias: float | None = field(metadata={"title": "Bias"})  # percent
    variance: float | None = field(metadata={"title": "Variance"})  # percent
    longer: float | None = field(metadata={"title": "Proba. prefer longer"})
    lists: float | None = field(metadata={"title": "Proba. prefer lists"})
    first: float | None = field(metadata={"title": "Proba. prefer 1"})
    parsed: int = field(metadata={"title": "# parsed"})


def quality(pairs: Sequence[HumanPair], judge: Labels) -> Quality:
    """A judge against all the people's labels of every pair."""
    both = _both(pairs, judge.of)
    every = [label for _, labels in both for label in labels]
    spearman, pearson = _correlations(pairs, judge)
    said = [(pair, labels[0]) for pair, labels in both]
    return Quality(
        agreement=_percent(_agreement(both)),
        price=_thousand(judge.price),
        seconds=_thousand(judge.seconds),
        spearman=spearman,
        pearson=pearson,
        bias=_percent(_bias(both)),
        variance=_percent(_variance([labels for _, labels in both])),
        longer=_share(said, _longer),
        lists=_share(said, _has_list),
        first=2 - mean(every) if every else None,
        parsed=len(every),
    )


def _correlations(pairs: Sequence[HumanPair], judge: Labels) -> tuple[float | None, float | None]:
    """Spearman's and Pearson's, of the generators' win rates by the people and by the judge."""
    rates = _win_rates(_both(pairs, judge.of))
    gold = _win_rates((pair, pair.preferences) for pair in pairs)
    shared = sorted(rates.keys() & gold.keys())
    rated, golden = [rates[g] for g in shared], [gold[g] for g in shared]
    return correlation(_ranks(golden), _ranks(rated)), correlation(golden, rated)


def agreements(pairs: Sequence[HumanPair], judge: Labels) -> list[float | None]:
    """1 - mean_i |l_i - b(h)| of every pair; None where no label could be read."""
    return [
        mean([1 - abs(x - estimate(pair.preferences)) for x in labels]) if labels else None
        for pair in pairs
        for labels in (judge.of.get(pair.key, ()),)
    ]


def agreements_of_people(pairs: Sequence[HumanPair]) -> list[float | None]:
    """The same of each of the people against the others; None for a pair with one label."""
    return [
        mean([1 - abs(h[i] - estimate(h[:i] + h[i + 1 :])) for i in range(len(h))])
        if len(h) > 1
        else None
        for h in (pair.preferences for pair in pairs)
    ]


def human_quality(pairs: Sequence[HumanPair]) -> Quality:
    """The people's own row: each of them against the others, their bias 0 by definition."""
    labels = {pair.key: pair.preferences for pair in pairs}
    one = quality(pairs, Labels(labels, PEOPLE_PRICE, PEOPLE_SECONDS))
    alone = None if one.variance is None else 100 - one.variance
    return replace(one, agreement=alone, bias=0.0)


def longest(pairs: Sequence[HumanPair]) -> Labels:
    """The judge that prefers the longer output whatever it says; the second of two equal ones."""
    return Labels(
        {p.key: (1.0 if len(p.output_1) > len(p.output_2) else 2.0,) for p in pairs}, 0.0, 0.0
    )


def agreement_interval(
    pairs: Sequence[HumanPair], judge: Labels, rounds: int = 1000
) -> tuple[float, float] | None:
    """95 % interval of the human agreement, in percent, by resampling pairs. Not official.

    Where all pairs agree alike, it is Wilson's at 0 and 100, and None between.
    """
    both = _both(pairs, judge.of)
    if not both:
        return None
    values = [x for x in agreements(pairs, judge) if x is not None]
    found = bootstrap(len(both), lambda drawn: 100 * mean([values[i] for i in drawn]), rounds)
    low, high = honest(100 * mean(values), *found, len(both), whole=100)
    return None if low is None or high is None else (low, high)


# --- estimates ---------------------------------------------------------------------------------


def estimate(labels: Sequence[float]) -> float:
    """b(labels): the most frequent label, or the median of labels that are shares.

    Of equally frequent ones the official program draws one with a generator seeded anew each
    time, so that the number of candidates decides which.
    """
    if not DISCRETE.issuperset(labels):
        return statistics.median(labels)
    modes = sorted(statistics.multimode(labels))
    return modes[_drawn(len(modes))]


@cache
def _drawn(n: int) -> int:
    if n == 1:
        return 0
    from numpy.random import RandomState

    return int(RandomState(_DRAW_SEED).choice(n, size=1, replace=False)[0])


def _agreement(both: Sequence[tuple[HumanPair, tuple[float, ...]]]) -> float | None:
    """Mean over the judge's labels l_i of 1 - mean |l_i - b(h)|."""
    people = [(labels, estimate(pair.preferences)) for pair, labels in both]
    asked = range(max((len(labels) for labels, _ in people), default=0))
    apart = [mean([abs(x[i] - h) for x, h in people if len(x) > i]) for i in asked]
    return 1 - mean(apart) if apart else None


def _bias(both: Sequence[tuple[HumanPair, tuple[float, ...]]]) -> float | None:
    if max((len(labels) for _, labels in both), default=0) < 2:
        return None
    return mean([abs(estimate(labels) - estimate(pair.preferences)) for pair, labels in both])


def _variance(every: Sequence[tuple[float, ...]]) -> float | None:
    """Mean over i of mean |l_i - b(the others)|; a pair with two labels missing is left out."""
    most = max((len(labels) for labels in every), default=0)
    if most < 2:
        return None
    complete = [labels for labels in every if len(labels) >= most - 1]
    left_out = [_left_out(complete, i) for i in range(most)]
    return mean([mean(apart) for apart in left_out if apart])


def _left_out(every: Iterable[tuple[float, ...]], i: int) -> list[float]:
    split = ((labels[i], labels[:i] + labels[i + 1 :]) for labels in every if len(labels) > i)
    return [abs(label - estimate(others)) for label, others in split if others]


# --- correlations ------------------------------------------------------------------------------


def _win_rates(labelled: Iterable[tuple[HumanPair, tuple[float, ...]]]) -> dict[str, float]:
    """Win rate of every generator: the mean of l - 1 over all labels of its outputs."""
    rows: dict[str, list[float]] = defaultdict(list)
    for pair, labels in labelled:
        for generator in pair.generators:
            rows[generator] += [label - 1 for label in labels]
    return {generator: mean(values) for generator, values in rows.items() if values}


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson's correlation; None for fewer than two points and for a constant."""
    try:
        return statistics.correlation(one, other)
    except statistics.StatisticsError:
        return None


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of their ranks (Spearman)."""
    ordered = sorted(values)
    return [ordered.index(x) + (ordered.count(x) + 1) / 2 for x in values]


# --- what a judge falls for --------------------------------------------------------------------


def _share(
    said: Iterable[tuple[HumanPair, float]], leaning: Callable[[str, str], bool | None]
) -> float | None:
    """Share of the pairs with such a difference in which the preferred output has it."""
    found = [leaning(better, worse) for better, worse in _decided(said)]
    counted = [bool(x) for x in found if x is not None]
    return sum(counted) / len(counted) if counted else None


def _decided(said: Iterable[tuple[HumanPair, float]]) -> Iterator[tuple[str, str]]:
    """(preferred output, other one) wherever there is no tie."""
    for pair, label in said:
        if label < TIE:
            yield pair.output_1, pair.output_2
        elif label > TIE:
            yield pair.output_2, pair.output_1


def _longer(better: str, worse: str) -> bool | None:
    difference = len(better) - len(worse)
    return difference > 0 if abs(difference) > LONGER else None


def _has_list(better: str, worse: str) -> bool | None:
    ours, theirs = has_list(better), has_list(worse)
    return ours if ours != theirs else None


def has_list(text: str) -> bool:
    """Whether a line starts as a list item does: "* x", "- x", "• x", "1. x", "1) x", "a. x"."""
    return _LIST_ITEM.search(text) is not None


# --- parts -------------------------------------------------------------------------------------


def _both(
    pairs: Iterable[HumanPair], labels: Mapping[str, tuple[float, ...]]
) -> list[tuple[HumanPair, tuple[float, ...]]]:
    return [(pair, labels[pair.key]) for pair in pairs if labels.get(pair.key)]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _thousand(each: float | None) -> float | None:
    return None if each is None else 1000 * each
