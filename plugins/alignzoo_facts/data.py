"""Datasets: the writers' answers, questions to train on, and questions kept for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from random import Random
from typing import Any

from alignzoo import Dataset, PromptSample, Response, TextSample, option
from alignzoo_facts.grammar import Statement, write
from alignzoo_facts.world import (
    ANIMALS,
    HELD_OUT_SIZE,
    Question,
    World,
    draw_held_out,
    draw_question,
)


def prompt_sample(question: Question, seed: int) -> PromptSample:
    """A question as a chat of one message, with what the oracle needs to know."""
    return PromptSample(({"role": "user", "content": question.text},), _meta(question, seed))


def _meta(question: Question, seed: int) -> dict[str, Any]:
    return {"world": seed, "animal": question.animal, "attributes": list(question.attributes)}


def draw_answer(world: World, rng: Random, told: float = 0.0) -> TextSample:
    """A training question with one writer's answer; with a share of `told`, behind its claims."""
    question = draw_question(rng)
    sample, draft = prompt_sample(question, world.seed), write(world, question, rng)
    prompt: Any = sample.prompt
    if told and rng.random() < told and draft.statements:
        claims = rng.sample(draft.statements, len(draft.statements))
        hint = " ".join(claim.sentence() for claim in claims)
        prompt = ({"role": "user", "content": f"{hint} {question.text}"},)
    return TextSample(prompt, Response(draft.text), sample.meta)


def truth(question: Question, world: World) -> str:
    """What is true of all that is asked, e.g. "it eats fish . it looks red ."."""
    facts = ((x, world.facts[question.animal, x].value) for x in question.attributes)
    return " ".join(Statement(*fact).sentence() for fact in facts)


@dataclass(frozen=True)
class Written(Dataset):
    """Answers by human-like writers: omissions, additions, myths, and moods (for SFT)."""

    name = "facts.sft"
    size: int = option(10_000, "number of answers", gt=0)
    told: float = option(
        0.0, "share of questions that stand behind the claims of their answer", ge=0, le=1
    )

    def __len__(self) -> int:
        """What a plan counts steps from."""
        return self.size

    def samples(self, seed: int) -> Iterable[TextSample]:
        """Question and answer; a smaller size is a prefix of a larger one."""
        world, rng = World(seed), Random(f"facts/sft/{seed}")
        return [draw_answer(world, rng, self.told) for _ in range(self.size)]


@dataclass(frozen=True)
class TrainingPrompts(Dataset):
    """Questions of the training side, drawn with replacement (pairs, on-policy training).

    With `hints`, `meta.hint` says what is true of all that is asked. With `half` 1 or 2 they are
    about the first or the last eight animals alone, and `meta.teacher` is 0 or 1.
    """

    name = "facts.prompts"
    size: int = option(4000, "number of questions", gt=0)
    hints: bool = option(False, "give every row a hint that is true")
    half: int = option(0, "1 or 2: about one half of the animals; 0: about all", ge=0, le=2)

    def __len__(self) -> int:
        """What a plan counts steps from."""
        return self.size

    def samples(self, seed: int) -> Iterable[PromptSample]:
        """Questions; a smaller size is a prefix of a larger one."""
        rng = Random(f"facts/prompts/{seed}")
        drawn = (draw_question(rng) for _ in count())
        return [self._sample(question, seed) for question in islice(self._own(drawn), self.size)]

    def _own(self, questions: Iterable[Question]) -> Iterator[Question]:
        middle = len(ANIMALS) // 2
        animals = {0: ANIMALS, 1: ANIMALS[:middle], 2: ANIMALS[middle:]}[self.half]
        return (question for question in questions if question.animal in animals)

    def _sample(self, question: Question, seed: int) -> PromptSample:
        sample = prompt_sample(question, seed)
        hint = {"hint": truth(question, World(seed))} if self.hints else {}
        teacher = {"teacher": self.half - 1} if self.half else {}
        return replace(sample, meta={**sample.meta, **hint, **teacher})


@dataclass(frozen=True)
class HeldOutPrompts(Dataset):
    """Distinct questions that occur in no training data, whatever the seed."""

    name = "facts.test"
    size: int = option(300, "number of questions", gt=0, le=HELD_OUT_SIZE)

    def __len__(self) -> int:
        """What a plan counts steps from."""
        return self.size

    def samples(self, seed: int) -> Iterable[PromptSample]:
        """Questions; a smaller size is a prefix of a larger one."""
        return [prompt_sample(question, seed) for question in draw_held_out(self.size, seed)]
