"""The world: which animal has which property, what people wrongly believe, and what can be asked.

Words and questions are the same for every seed; facts, myths and the writers' accuracy are drawn.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from random import Random

ANIMALS = (
    *("fox", "owl", "bear", "deer", "frog", "goat", "lion", "seal"),
    *("mouse", "horse", "tiger", "zebra", "crow", "otter", "camel", "whale"),
)

VALUES: Mapping[str, tuple[str, ...]] = {  # every word occurs once, so a value has one attribute
    "color": ("red", "blue", "green", "yellow", "black", "white"),
    "food": ("fish", "berries", "seeds", "insects", "grass", "honey"),
    "home": ("caves", "trees", "rivers", "burrows", "cliffs", "swamps"),
    "fear": ("thunder", "fire", "snakes", "hunters", "darkness", "ghosts"),
    "hobby": ("swimming", "dancing", "singing", "sleeping", "running", "digging"),
}
ATTRIBUTES = tuple(VALUES)

TEMPLATES = (
    "tell me the {attributes} of the {animal} .",
    "what is the {attributes} of the {animal} ?",
    "please describe the {attributes} of the {animal} .",
    "i wonder about the {attributes} of the {animal} .",
)
COUNT_SHARE = {1: 0.25, 2: 0.5, 3: 0.25}  # how many attributes a question asks for

LOW_ACCURACY, HIGH_ACCURACY = 0.25, 0.8  # the writers' share of right values, drawn per fact
HELD_OUT_EVERY = 6
HELD_OUT_SIZE = 886  # what the rule leaves of the 5440


@dataclass(frozen=True)
class Fact:
    """What is true of one animal and attribute, and how writers get it wrong."""

    value: str
    myth: str  # the wrong value most writers who err believe in
    accuracy: float  # probability that a writer states the true value


@dataclass(frozen=True)
class World:
    """16 animals x 5 attributes, one of 6 values each: 80 facts, a function of the seed alone."""

    seed: int

    @cached_property
    def facts(self) -> Mapping[tuple[str, str], Fact]:
        """The fact about every (animal, attribute)."""
        rng = Random(f"facts/world/{self.seed}")
        return {key: _draw_fact(key[1], rng) for key in itertools.product(ANIMALS, ATTRIBUTES)}


def _draw_fact(attribute: str, rng: Random) -> Fact:
    value, myth = rng.sample(VALUES[attribute], 2)
    return Fact(value, myth, rng.uniform(LOW_ACCURACY, HIGH_ACCURACY))


@dataclass(frozen=True)
class Question:
    """A request for 1 to 3 different attributes of one animal; their order matters."""

    template: str
    animal: str
    attributes: tuple[str, ...]

    @property
    def text(self) -> str:
        """The prompt, e.g. "tell me the food and the home of the fox ."."""
        return self.template.format(
            attributes=" and the ".join(self.attributes), animal=self.animal
        )

    @property
    def held_out(self) -> bool:
        """Whether the question is kept for tests: md5 of its text, one in six."""
        digest = hashlib.md5(self.text.encode(), usedforsecurity=False).hexdigest()
        return int(digest, 16) % HELD_OUT_EVERY == 0


@cache
def all_questions() -> tuple[Question, ...]:
    """The 4 x 16 x (5 + 20 + 60) = 5440 questions, in a fixed order."""
    return tuple(
        Question(template, animal, attributes)
        for template, animal in itertools.product(TEMPLATES, ANIMALS)
        for count in COUNT_SHARE
        for attributes in itertools.permutations(ATTRIBUTES, count)
    )


@cache
def questions(held_out: bool) -> Mapping[int, tuple[Question, ...]]:
    """One side of the split, by the number of attributes asked for."""
    return {
        count: tuple(
            q for q in all_questions() if len(q.attributes) == count and q.held_out == held_out
        )
        for count in COUNT_SHARE
    }


def draw_question(rng: Random) -> Question:
    """A question of the training side, drawn with replacement, its count by COUNT_SHARE."""
    (count,) = rng.choices(tuple(COUNT_SHARE), tuple(COUNT_SHARE.values()))
    return rng.choice(questions(held_out=False)[count])


def draw_held_out(size: int, seed: int) -> list[Question]:
    """Distinct held-out questions; a smaller size is a prefix of a larger one.

    Drawing with weight w and putting repeats back is the same as ordering by Exp(w) arrival times,
    which needs no loop that slows down when few questions are left.
    """
    rng = Random(f"facts/held-out/{seed}")
    arrival = {
        question: rng.expovariate(COUNT_SHARE[count] / len(group))
        for count, group in questions(held_out=True).items()
        for question in group
    }
    return sorted(arrival, key=arrival.__getitem__)[:size]
