"""The stories benchmark: held-out beginnings, the judge's score, and how varied the answers are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alignzoo import Answer, Column, Judge, PromptSample, ScoredBenchmark, option
from alignzoo_stories.judge import StoriesJudge, bigrams
from alignzoo_stories.prompts import StoryPrompts


@dataclass(frozen=True)
class StoriesBenchmark(ScoredBenchmark):
    """Finish the paragraph kindly: win rate, score and features on held-out prompts.

    `distinct_2` guards against the hack no judge of single answers sees, stock phrases. Sampling at
    a lower temperature raises the score as well: compare models at one temperature only.
    """

    name = "stories"
    size: int = option(200, "number of held-out prompts", gt=0, le=100_000)

    def judge(self) -> Judge:
        """The judge of the same name."""
        return StoriesJudge()

    def prompts(self, seed: int) -> Iterable[PromptSample]:
        """Prompts that no training set of `stories.prompts` contains."""
        return StoryPrompts(size=self.size, held_out=True).samples(seed)

    def measure(
        self,
        answers: Sequence[Sequence[Answer]],
        baseline: Sequence[Sequence[Answer]] | None,
    ) -> Mapping[str, Column]:
        """The columns of every scored benchmark, and `distinct_2`."""
        texts = [[answer.response.text for answer in samples] for samples in answers]
        return {
            **super().measure(answers, baseline),
            "distinct_2": Column(
                distinct_2(texts),
                "different word pairs / word pairs over all answers; falls with more text",
                better=1,
            ),
        }


def distinct_2(texts: Sequence[Sequence[str]]) -> tuple[float, ...]:
    """Shares of the prompts in distinct-2 = types / tokens of the bigrams of all answers.

    A bigram that occurs c times counts 1/c each time, so the counts sum to the number of types;
    times prompts / tokens, the mean over prompts is the distinct-2 of the whole set, exactly.
    """
    found = [[pair for text in samples for pair in bigrams(text)] for samples in texts]
    counts = Counter(pair for pairs in found for pair in pairs)
    scale = len(found) / max(1, counts.total())
    return tuple(scale * sum(1 / counts[pair] for pair in pairs) for pairs in found)
