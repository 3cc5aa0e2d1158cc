"""Pairs of answers that several people compared, for judges to be held against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

from alignzoo import Answer, Dataset, GroupSample, Response, option
from alignzoo_facts.data import prompt_sample
from alignzoo_facts.grammar import write
from alignzoo_facts.oracle import Annotator, Oracle
from alignzoo_facts.world import HELD_OUT_SIZE, Question, World, draw_held_out

# Systems of known quality: each takes one of so many writers' answers.
SYSTEMS: Mapping[str, tuple[str, int]] = {
    "worst-of-4": ("worst", 4),
    "worst-of-2": ("worst", 2),
    "longest-of-2": ("longest", 2),
    "longest-of-4": ("longest", 4),
    "best-of-2": ("best", 2),
    "best-of-3": ("best", 3),
    "best-of-4": ("best", 4),
    "best-of-6": ("best", 6),
    "best-of-8": ("best", 8),
    "best-of-12": ("best", 12),
}


@dataclass(frozen=True)
class People(Dataset):
    """A writer's answer beside one of a system, and the preferences of several people (1 or 2).

    A person prefers the second with P = sigmoid(scale (R_2 - R_1) + length_bias (n_2 - n_1)), R
    the true reward and n tokens; all people are alike and draw for themselves, so that any two
    agree as often as that noise has it. The systems are the best, longest or worst of 2 to 12
    writers' answers and take turns. Questions are held out; `meta` has `preferences` and
    `generator`.
    """

    name = "facts.people"
    size: int = option(640, "number of pairs", gt=0)
    people: int = option(4, "how many compare each pair", gt=0)
    scale: float = option(1.0, "how much the true reward counts; larger means less noise", ge=0)
    length_bias: float = option(0.03, "added per token, stop token not counted")

    def __len__(self) -> int:
        """What a plan counts steps from."""
        return self.size

    def samples(self, seed: int) -> Iterable[GroupSample]:
        """A smaller size is a prefix of a larger one."""
        world, rng = World(seed), Random(f"facts/people/{seed}")
        asked = draw_held_out(HELD_OUT_SIZE, seed)
        names = list(SYSTEMS)
        return [
            self._pair(world, asked[n // len(names) % len(asked)], names[n % len(names)], rng)
            for n in range(self.size)
        ]

    def _pair(self, world: World, question: Question, system: str, rng: Random) -> GroupSample:
        one = two = _written(world, question, rng)
        while two.response.text == one.response.text:
            one = _written(world, question, rng)
            two = _of_system(world, question, system, rng)
        taste = Annotator(self.scale, self.length_bias)
        first, second = (score.value for score in taste.score([one, two]))
        share = 0.5 * (1 + math.tanh((second - first) / 2))
        said = [2.0 if rng.random() < share else 1.0 for _ in range(self.people)]
        meta = {**one.sample.meta, "preferences": said, "generator": system}
        return GroupSample(one.prompt, (one.response, two.response), meta=meta)


def _of_system(world: World, question: Question, system: str, rng: Random) -> Answer:
    kind, count = SYSTEMS[system]
    answers = [_written(world, question, rng) for _ in range(count)]
    if kind == "longest":
        return max(answers, key=lambda answer: answer.n_tokens)
    rewards = [score.value for score in Oracle().score(answers)]
    place = rewards.index(max(rewards) if kind == "best" else min(rewards))
    return answers[place]


def _written(world: World, question: Question, rng: Random) -> Answer:
    text = write(world, question, rng).text
    return Answer(prompt_sample(question, world.seed), Response(text), len(text.split()))
