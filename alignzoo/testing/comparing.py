"""The promises of `Judge.compare`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

from alignzoo.contract.evaluation import Answer, Judge
from alignzoo.contract.types import PromptSample, Response
from alignzoo.testing.checks import Trial, require
from alignzoo.testing.judged import TEXTS

NEAR = 1e-9  # of two numbers that should be the same
COMPARED = 2  # prompts
Pairs = Sequence[tuple[Answer, Answer]]


def compare_trials(judge: Judge, prompts: Sequence[PromptSample]) -> Iterator[tuple[str, Trial]]:
    """Every two of some answers to some prompts, in both orders, and one answer beside itself."""
    pairs = [pair for prompt in prompts[:COMPARED] for pair in _pairs(prompt)]
    yield "one number from 0 to 1 per pair, in order", lambda: _shares(judge, pairs)
    yield "the same pairs get the same numbers", lambda: _again(judge, pairs)
    yield "a comparison does not depend on its neighbours", lambda: _one_by_one(judge, pairs)
    yield "no pairs, no numbers", lambda: _none(judge)
    if type(judge).symmetric:
        yield "P(a, b) = 1 - P(b, a), as it claims", lambda: _both_orders(judge, pairs)


def _pairs(prompt: PromptSample) -> list[tuple[Answer, Answer]]:
    answers = [Answer(prompt, Response(t, ended=bool(t)), len(t.split())) for t in TEXTS]
    return [*permutations(answers, 2), (answers[0], answers[0])]


def _shares(judge: Judge, pairs: Pairs) -> str:
    found = judge.compare(pairs)
    require(len(found) == len(pairs), f"{len(found)} numbers for {len(pairs)} pairs")
    odd = [x for x in found if not isinstance(x, int | float) or not 0 <= x <= 1]
    require(not odd, f"not a number from 0 to 1: {odd[:1]}")
    return f"{len(found)} pairs"


def _again(judge: Judge, pairs: Pairs) -> str:
    require(judge.compare(pairs) == judge.compare(pairs), "a second call gives other numbers")
    return ""


def _one_by_one(judge: Judge, pairs: Pairs) -> str:
    together = list(judge.compare(pairs))
    alone = [x for pair in reversed(pairs) for x in judge.compare([pair])]
    require(together == alone[::-1], "compared one by one, the numbers differ")
    return ""


def _none(judge: Judge) -> str:
    require(list(judge.compare([])) == [], "numbers without pairs")
    return ""


def _both_orders(judge: Judge, pairs: Pairs) -> str:
    found = judge.compare(pairs)
    turned = judge.compare([(b, a) for a, b in pairs])
    odd = [(x, y) for x, y in zip(found, turned, strict=True) if abs(x + y - 1) > NEAR]
    what = "{} and {} in the other order; say `symmetric = False` where positions count"
    require(not odd, what.format(*(odd[0] if odd else ("", ""))))
    return f"{len(pairs)} pairs"
