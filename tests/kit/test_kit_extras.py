"""Promises of what only some methods use: each is kept by one plug-in, and broken by another."""

from __future__ import annotations

from typing import ClassVar

import pytest
from extra_methods import Grouped

from alignzoo import Algorithm, Loss, Mean, Term
from alignzoo.ops import sequence_sum
from alignzoo.testing import check_algorithm, run_algorithm_checks

ORDER = "the order of a group's answers changes nothing"


class Muddled(Grouped):
    """L as above, with rows cut as if they lay prompt by prompt. Source: https://example.org."""

    def side_by_side(self, batch, x):
        return x.view(batch.n_items, -1)


class Favours(Grouped):
    """L = -S(y_1), whatever the scores. Source: https://example.org."""

    def loss(self, batch, signals, state):
        first = batch.by_group(sequence_sum(signals["policy"], batch.mask))[:, 0]
        return Loss(Term(-first), {"spread": Mean(first.detach())})


KEPT = [Grouped]
BROKEN = [
    (Muddled, "micro-batches change nothing"),
    (Muddled, ORDER),
    (Favours, ORDER),
]


@pytest.mark.parametrize("method", KEPT)
def test_a_method_that_uses_more_of_the_contract_keeps_all_its_promises(method):
    check_algorithm(method())


@pytest.mark.parametrize(("method", "promise"), BROKEN)
def test_a_method_that_breaks_one_of_them_is_told_which(method, promise):
    assert promise in {c.promise for c in run_algorithm_checks(method()) if not c.kept}


def test_every_promise_that_only_some_methods_give_has_a_flawed_plugin():
    usual = {c.promise for c in run_algorithm_checks(Plain())}
    more = {c.promise for method in KEPT for c in run_algorithm_checks(method())} - usual
    assert more <= {promise for _, promise in BROKEN}


class Plain(Grouped):
    """L = -S(y), of pairs. Source: https://example.org."""

    batch = Algorithm.batch
    metrics: ClassVar = {}

    def loss(self, batch, signals, state):
        return Loss(Term(-sequence_sum(signals["policy"], batch.mask)))
