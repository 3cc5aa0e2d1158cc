"""Values of answers by a judge that says itself which of two is better."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.contract.errors import PluginError
from alignzoo.contract.evaluation import Answer, Judge
from alignzoo.judging.ranking import duels, win_rates
from alignzoo.judging.read import blaming


def preferences(judge: Judge, pairs: Sequence[tuple[Answer, Answer]]) -> list[float]:
    """P(first better) of pairs, by a judge that compares them itself.

    Raises PluginError when it does not return one number from 0 to 1 per pair.
    """
    if not pairs:
        return []
    shown = judge.seen([answer for pair in pairs for answer in pair])
    both = list(zip(shown[::2], shown[1::2], strict=True))
    if judge.symmetric:
        return _shares(judge, both)
    found = _shares(judge, [*both, *((b, a) for a, b in both)])
    return [(p + 1 - q) / 2 for p, q in zip(found, found[len(both) :], strict=False)]


def _shares(judge: Judge, pairs: Sequence[tuple[Answer, Answer]]) -> list[float]:
    with blaming(f"judge '{judge.name}'"):
        found = [float(p) for p in judge.compare(pairs)]
    if len(found) != len(pairs) or not all(0 <= p <= 1 for p in found):
        raise PluginError(
            f"judge '{judge.name}': `compare` must return one number from 0 to 1 per pair; it "
            f"returned {len(found)} for {len(pairs)}"
        )
    return found


def ranked(judge: Judge, groups: Sequence[Sequence[Answer]]) -> list[list[float | None]]:
    """Win rates of every group's answers, by a judge that compares them itself."""
    places = [(g, *pair) for g, group in enumerate(groups) for pair in duels(group)]
    found = preferences(judge, [(groups[g][i], groups[g][j]) for g, i, j in places])
    better: list[dict[tuple[int, int], float | None]] = [{} for _ in groups]
    for (g, i, j), p in zip(places, found, strict=True):
        better[g][i, j] = p
    return [win_rates(*both) for both in zip(groups, better, strict=True)]
