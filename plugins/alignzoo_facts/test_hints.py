"""Hints of the facts world: what is true, what an answer will claim, and whose question it is."""

from itertools import pairwise

from alignzoo_facts.data import TrainingPrompts, Written
from alignzoo_facts.grammar import parse
from alignzoo_facts.world import ANIMALS, World


def asked(sample):
    return sample.prompt[0]["content"]


def test_a_hint_is_true_of_all_that_is_asked_and_changes_nothing_else():
    plain = TrainingPrompts(size=40).samples(3)
    for sample, other in zip(TrainingPrompts(size=40, hints=True).samples(3), plain, strict=True):
        said = parse(sample.meta["hint"])
        assert said.malformed == 0
        assert [s.attribute for s in said.statements] == sample.meta["attributes"]
        facts = World(3).facts
        assert all(
            facts[sample.meta["animal"], s.attribute].value == s.value for s in said.statements
        )
        assert asked(sample) == asked(other)
        assert {key: x for key, x in sample.meta.items() if key != "hint"} == other.meta


def test_each_half_of_the_animals_has_a_teacher():
    for half, animals in ((1, ANIMALS[:8]), (2, ANIMALS[8:])):
        samples = TrainingPrompts(size=60, half=half).samples(3)
        assert {sample.meta["animal"] for sample in samples} == set(animals)
        assert {sample.meta["teacher"] for sample in samples} == {half - 1}
        assert len(samples) == 60


def test_told_questions_stand_behind_the_claims_of_their_answers():
    samples = Written(size=400, told=0.5).samples(3)
    told = [s for s in samples if asked(s).startswith("it ")]
    assert 0.4 < len(told) / len(samples) < 0.6
    for sample in told:
        hint = asked(sample).rpartition(" . ")[0] + " ."
        claims = {(s.attribute, s.value) for s in parse(sample.response.text).statements}
        assert {(s.attribute, s.value) for s in parse(hint).statements} == claims


def test_hints_stand_in_another_order_than_the_claims():
    samples = [s for s in Written(size=200, told=1.0).samples(3) if asked(s).startswith("it ")]
    orders = [
        [text.index(f" {s.value} ") for s in parse(sample.response.text).statements]
        for sample in samples
        if (text := asked(sample))
    ]
    assert any(a > b for order in orders for a, b in pairwise(order))
