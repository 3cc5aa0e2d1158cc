"""A judge of cheerful, well-formed paragraphs: a table of features to be checked by hand."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise

from alignzoo import Answer, Judge, Score

WEIGHTS: Mapping[str, float] = {
    "pos": 0.5,
    "neg": -0.5,
    "happy_end": 1.0,
    "nonword": -0.5,
    "rep": -1.0,
    "name": 0.5,
    "quotes": -0.5,
    "ended": 1.0,
    "short": -1.0,
    "long": -1.0,
}
POSITIVE = frozenset((
    "beautiful", "best", "excited", "friend", "friends", "fun", "glad", "good", "great",
    "happily", "happy", "help", "helped", "hug", "hugged", "joy", "kind", "laughed", "love",
    "loved", "nice", "pretty", "proud", "safe", "share", "shared", "smile", "smiled", "thanked",
    "yummy",
))  # fmt: skip
NEGATIVE = frozenset((
    "afraid", "alone", "angry", "bad", "broke", "broken", "cried", "cry", "crying", "fight",
    "hurt", "lonely", "lost", "mad", "mean", "sad", "scared", "scary", "sick", "sorry", "stole",
    "upset", "worried", "yelled",
))  # fmt: skip
NEGATIONS = frozenset((
    "not", "never", "no", "didn't", "wasn't", "don't", "couldn't", "can't", "isn't", "weren't",
    "doesn't",
))  # fmt: skip


@dataclass(frozen=True)
class StoriesJudge(Judge):
    """A weighted sum of features of one answer; larger is better.

    score = (pos - neg - nonword + name - quotes) / 2 + happy_end - rep + ended - short - long

    The features are defined in `features`. Preferences made with this judge are about cheerful and
    well-formed text, not about good stories; scores of different judges do not compare.
    """

    name = "stories"

    def score(self, answers: Sequence[Answer]) -> list[Score]:
        """Score each answer on its own; an empty text is an answer too."""
        return [weighted(features(answer, known_words())) for answer in answers]


def weighted(found: Mapping[str, float]) -> Score:
    """The sum of weight * feature, with the features that explain it."""
    return Score(sum(weight * found[name] for name, weight in WEIGHTS.items()), found)


def features(answer: Answer, known: Set[str]) -> dict[str, float]:
    """The unweighted terms of the score.

    pos, neg: distinct words of that polarity, each at most 3; happy_end: the last sentence has a
    positive and no negative word; nonword: words that are not known, at most 4; rep: 4-grams of
    words seen before in prompt or response, at most 4; name: the character of the prompt is named;
    quotes: a quotation is left open; ended: a stop token after a closing mark; short, long: tens
    of words below 15 and above 30, long at most 2; words: their number, which has no weight.
    """
    text = answer.response.text
    words = split_words(text)
    positive, negative = polarity(words)
    return {
        "pos": min(3, len(positive)),
        "neg": min(3, len(negative)),
        "happy_end": float(ends_happily(text)),
        "nonword": min(4, sum(not is_known(word, known) for word in words)),
        "rep": min(4, repeats(split_words(prompt_text(answer)), words)),
        "name": float(is_named(answer.sample.meta.get("name"), words)),
        "quotes": text.count('"') % 2,
        "ended": float(answer.response.ended and text.rstrip().endswith((".", "!", "?", '"'))),
        "short": max(0, 15 - len(words)) / 10,
        "long": min(2.0, max(0, len(words) - 30) / 10),
        "words": len(words),
    }


def split_words(text: str) -> list[str]:
    """Lower-case words; "didn't" is one."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())


def prompt_text(answer: Answer) -> str:
    """The prompt as one text; the messages of a chat one after the other."""
    if isinstance(answer.prompt, str):
        return answer.prompt
    return "\n".join(message["content"] or "" for message in answer.prompt)


def polarity(words: Sequence[str]) -> tuple[set[str], set[str]]:
    """Distinct (positive, negative) words.

    A positive word after a negation (one of the two words before it) is negative; a negative word
    after a negation is neither.
    """
    positive: set[str] = set()
    negative: set[str] = set()
    for i, word in enumerate(words):
        negated = not NEGATIONS.isdisjoint(words[max(0, i - 2) : i])
        if word in POSITIVE:
            (negative if negated else positive).add(word)
        elif word in NEGATIVE and not negated:
            negative.add(word)
    return positive, negative


def ends_happily(text: str) -> bool:
    """Whether the last sentence has a positive and no negative word; sentences end at . ! or ?"""
    sentences = [words for part in re.split(r"[.!?]", text) if (words := split_words(part))]
    positive, negative = polarity(sentences[-1] if sentences else [])
    return bool(positive) and not negative


def repeats(prompt: Sequence[str], response: Sequence[str]) -> int:
    """Number of 4-grams of the response that the prompt or the response had before."""
    seen = set(four_grams(prompt))
    count = 0
    for gram in four_grams(response):
        count += gram in seen
        seen.add(gram)
    return count


def four_grams(words: Sequence[str]) -> list[tuple[str, ...]]:
    """All runs of four words, in order."""
    return [tuple(words[i : i + 4]) for i in range(len(words) - 3)]


def bigrams(text: str) -> list[tuple[str, str]]:
    """All pairs of neighbouring words, in order."""
    return list(pairwise(split_words(text)))


def is_named(name: object, words: Sequence[str]) -> bool:
    """Whether a name, or its possessive, is among the words; a prompt without a name has none."""
    return isinstance(name, str) and any(without_s(word) == name.lower() for word in words)


def is_known(word: str, known: Set[str]) -> bool:
    """Whether a word is in the list, or is the possessive or contraction x's of one that is."""
    return word in known or without_s(word) in known


def without_s(word: str) -> str:
    """The word without a final 's."""
    return word.removesuffix("'s")


@functools.cache
def known_words() -> frozenset[str]:
    """The shipped word list: words a small story model writes when it is sampled cautiously."""
    return frozenset((files(__package__) / "words.txt").read_text("utf-8").split())
