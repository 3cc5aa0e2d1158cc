"""Datasets: the writers' answers, questions to train on, and questions kept for tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from alignzoo import Dataset, PromptSample, Response, TextSample, option
from alignzoo_facts.grammar import write
from alignzoo_facts.world import HELD_OUT_SIZE, Question, World, draw_held_out, draw_question


def prompt_sample(question: Question, seed: int) -> PromptSample:
    """A question as a chat of one message, with what the oracle needs to know."""
    return PromptSample(({"role": "user", "content": question.text},), _meta(question, seed))


def _meta(question: Question, seed: int) -> dict[str, Any]:
    return {"world": seed, "animal": question.animal, "attributes": list(question.attributes)}


def draw_answer(world: World, rng: Random) -> TextSample:
    """A training question with one writer's answer."""
    question = draw_question(rng)
    sample = prompt_sample(question, world.seed)
    return TextSample(sample.prompt, Response(write(world, question, rng).text), sample.meta)


@dataclass(frozen=True)
class Written(Dataset):
    """Answers by human-like writers: omissions, additions, myths, and moods (for SFT)."""

    name = "facts.sft"
    size: int = option(10_000, "number of answers", gt=0)

    def __len__(self) -> int:
        """What a plan counts steps from."""
        return self.size

    def samples(self, seed: int) -> Iterable[TextSample]:
        """Question and answer; a smaller size is a prefix of a larger one."""
        world, rng = World(seed), Random(f"facts/sft/{seed}")
        return [draw_answer(world, rng) for _ in range(self.size)]


@dataclass(frozen=True)
class TrainingPrompts(Dataset):
    """Questions of the training side, drawn with replacement (pairs, on-policy training)."""

    name = "facts.prompts"
    size: int = option(4000, "number of questions", gt=0)

    def __len__(self) -> int:
        """What a plan counts steps from."""
        return self.size

    def samples(self, seed: int) -> Iterable[PromptSample]:
        """Questions; a smaller size is a prefix of a larger one."""
        rng = Random(f"facts/prompts/{seed}")
        return [prompt_sample(draw_question(rng), seed) for _ in range(self.size)]


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
