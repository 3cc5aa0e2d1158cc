"""Prompts that a policy answers while it learns: as text and as ids, and what other roles see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from alignzoo.contract.errors import DataError
from alignzoo.contract.evaluation import Answer
from alignzoo.contract.rollout import Completion
from alignzoo.contract.types import PromptSample, Response
from alignzoo.contract.views import Case
from alignzoo.data.reader import Reader
from alignzoo.data.tokens import decode_answer
from alignzoo.data.views import Views
from alignzoo.recipe.blocks import RolloutSpec


@dataclass(frozen=True)
class Task:
    """The prompts that are answered, as text and as ids."""

    samples: Sequence[PromptSample]
    prompts: Sequence[tuple[int, ...]]
    places: Sequence[str]
    reader: Reader
    stop: tuple[int, ...]

    def only(self, numbers: Sequence[int]) -> Task:
        """Some of the prompts."""
        return replace(
            self,
            samples=[self.samples[n] for n in numbers],
            prompts=[self.prompts[n] for n in numbers],
            places=[self.places[n] for n in numbers],
        )

    def answer(self, number: int, done: Completion) -> Answer:
        """A completion as a judge sees it."""
        response = decode_answer(
            self.prompts[number], done.ids, self.reader, self.stop, ended=done.ended
        )
        return Answer(self.samples[number], response, len(done.ids) - done.ended)


@dataclass(frozen=True)
class SampledViews:
    """What roles that see other prompts read before sampled answers."""

    views: Views
    task: Task
    context: int | None  # of the models

    def __call__(
        self, number: int, done: Sequence[Completion], scores: Sequence[float]
    ) -> Sequence[Mapping[str, tuple[int, ...]]]:
        """For each answer: view -> the ids before it.

        Raises DataError when one does not fit the context.
        """
        answers = tuple(self.task.answer(number, c).response for c in done)
        sample, place = self.task.samples[number], self.task.places[number]
        found = []
        for k, completion in enumerate(done):
            case = Case(sample, k, answers, tuple(scores))
            seen = self.views.prompts(case, self.task.reader, place)
            for name, ids in seen.items():
                self._check(len(ids) + len(completion.ids), f"{place}, view '{name}'")
            found.append(seen)
        return found

    def _check(self, length: int, place: str) -> None:
        if self.context is not None and length > self.context:
            raise DataError(
                f"{place}: has {length} tokens with the answer, more than the context, "
                f"{self.context}; let the method bound what it takes of answers, or sample fewer "
                "tokens"
            )


def longest_views(views: Views, task: Task, block: RolloutSpec) -> list[int]:
    """Tokens of the longest view of every prompt, before anything is sampled.

    Views may hold answers, so they are asked for with answers that are as long as any may be.
    """
    n, scores = block.samples_per_prompt, (0.0,) * block.samples_per_prompt
    found = []
    for sample, ids, place in zip(task.samples, task.prompts, task.places, strict=True):
        most = block.sampling.max_new_tokens
        filler = (ids * (most // len(ids) + 1))[:most]
        answer = Response(task.reader.plain(filler), filler, ended=False)
        case = Case(sample, 0, (answer,) * n, scores)
        seen = views.prompts(case, task.reader, place)
        found.append(max(len(prompt) for prompt in seen.values()))
    return found
