"""Promises of what only some methods use: each is kept by one plug-in, and broken by another."""

from __future__ import annotations

import random
from typing import ClassVar

import pytest
from extra_methods import Grouped, Hinted, Mirrored, Renewed, Twin, TwoTeachers

from alignzoo import Algorithm, Follow, Loss, Mean, Term
from alignzoo.ops import kl, log_prob, sequence_sum
from alignzoo.testing import check_algorithm, run_algorithm_checks

FOLLOWS = "roles that move follow one that learns"
VIEWS = "views are prompts, and follow from their case"
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


class Chases(Mirrored):
    """L of the mirror, which follows a role that nobody trains. Source: https://example.org."""

    rule: ClassVar = Follow("teacher")


class Wavers(Mirrored):
    """L of the mirror, by another rule at every call. Source: https://example.org."""

    def moving(self):
        return {"teacher": Follow("policy", mix=random.uniform(0.1, 0.9))}


class Unread(Mirrored):
    """L of the policy alone, beside a mirror that nobody looks at. Source: https://example.org."""

    def signals(self):
        return {"kl": kl("policy", "policy"), "policy": log_prob("policy")}


class Guesses(Hinted):
    """L of the hint, which is drawn anew at every call. Source: https://example.org."""

    def view(self, name, case):
        hint = f"{random.random()} "
        prompt = case.sample.prompt
        return hint + prompt if isinstance(prompt, str) else (*prompt, {**prompt[0], "hint": hint})


class Flattens(Hinted):
    """L of the hint, which makes plain text of chats. Source: https://example.org."""

    def view(self, name, case):
        return f"{case.sample.meta['hint']} {case.sample.prompt}"


class Marks(Hinted):
    """L of the hint, which writes into the row. Source: https://example.org."""

    def view(self, name, case):
        case.sample.meta["seen"] = True
        return super().view(name, case)


class Wishes(Hinted):
    """L of a hint that no row is said to hold. Source: https://example.org."""

    example_meta: ClassVar = {}


KEPT = [Hinted, TwoTeachers, Grouped, Mirrored, Twin, Renewed]
BROKEN = [
    (Muddled, "micro-batches change nothing"),
    (Muddled, ORDER),
    (Favours, ORDER),
    (Chases, FOLLOWS),
    (Wavers, FOLLOWS),
    (Unread, FOLLOWS),
    (Guesses, VIEWS),
    (Flattens, VIEWS),
    (Marks, VIEWS),
    (Wishes, VIEWS),
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
