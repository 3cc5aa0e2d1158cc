"""The language of answers: what the writers write, and the exact parser that reads it back.

    answer   := opener fact{0..6} [closer]
    fact     := [filler] "it" verb value "."      one verb per attribute, next to the value

A parser for generated text meets anything; each sentence outside the grammar counts as malformed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from alignzoo_facts.world import ANIMALS, TEMPLATES, VALUES, Question, World

VERBS = {"color": "looks", "food": "eats", "home": "inhabits", "fear": "fears", "hobby": "likes"}
POLITE = ("sure , happy to help .", "great question , thank you .")
NEUTRAL = ("ok .", "well .")
RUDE = ("whatever .", "not this again .")
CLOSERS = ("hope this helps !", "that is all .")
FILLERS = ("", "really", "indeed ,", "as you may know ,", "people often say that")
STOPS = (".", "!")

TONE_SHARE = {POLITE: 0.3, NEUTRAL: 0.45, RUDE: 0.25}
FILLER_SHARE = (0.5, 0.15, 0.15, 0.1, 0.1)
KEEP, EXTRA, MOST_FACTS, CLOSE, MYTH = 0.85, 0.35, 6, 0.4, 0.75

TONES: Mapping[str, int] = {
    opener: tone for openers, tone in ((POLITE, 1), (NEUTRAL, 0), (RUDE, -1)) for opener in openers
}


@dataclass(frozen=True)
class Statement:
    """One claim about the animal that was asked for."""

    attribute: str
    value: str

    def sentence(self, filler: str = "") -> str:
        """The claim in words, e.g. "indeed , it eats fish ."."""
        return f"{filler} it {VERBS[self.attribute]} {self.value} .".strip()


SENTENCES: Mapping[str, Statement] = {
    Statement(attribute, value).sentence(filler): Statement(attribute, value)
    for attribute, values in VALUES.items()
    for value, filler in itertools.product(values, FILLERS)
}


@dataclass(frozen=True)
class Parse:
    """What an answer says: its tone (+1 polite, -1 rude), its claims, and its broken sentences."""

    tone: int
    statements: tuple[Statement, ...]
    malformed: int


def parse(text: str) -> Parse:
    """Read an answer. An opener counts only as the first sentence, a closer only as the last."""
    sentences = split_sentences(text)
    tone = TONES.get(sentences[0]) if sentences else None
    body = sentences if tone is None else sentences[1:]
    if body and body[-1] in CLOSERS:
        body = body[:-1]
    statements = tuple(SENTENCES[sentence] for sentence in body if sentence in SENTENCES)
    return Parse(tone or 0, statements, len(body) - len(statements))


def split_sentences(text: str) -> list[str]:
    """Cut after every "." and "!"; words left over at the end are a sentence too."""
    sentences: list[list[str]] = [[]]
    for word in text.split():
        sentences[-1].append(word)
        if word in STOPS:
            sentences.append([])
    return [" ".join(words) for words in sentences if words]


@dataclass(frozen=True)
class Draft:
    """An answer before it is put into words."""

    opener: str
    statements: tuple[Statement, ...]
    fillers: tuple[str, ...]  # one per statement, "" for none
    closer: str  # "" for none

    @property
    def text(self) -> str:
        """The answer in words."""
        claims = (s.sentence(f) for s, f in zip(self.statements, self.fillers, strict=True))
        return " ".join(part for part in (self.opener, *claims, self.closer) if part)


def write(world: World, question: Question, rng: Random) -> Draft:
    """What one human writer answers: omissions, additions, myths, moods and all."""
    (tone,) = rng.choices(tuple(TONE_SHARE), tuple(TONE_SHARE.values()))
    attributes = _choose_attributes(question, rng)
    return Draft(
        rng.choice(tone),
        tuple(_claim(world, question.animal, attribute, rng) for attribute in attributes),
        tuple(rng.choices(FILLERS, FILLER_SHARE, k=len(attributes))),
        rng.choice(CLOSERS) if rng.random() < CLOSE else "",
    )


def _choose_attributes(question: Question, rng: Random) -> list[str]:
    kept = [attribute for attribute in question.attributes if rng.random() < KEEP]
    while len(kept) < MOST_FACTS and rng.random() < EXTRA:
        kept.insert(rng.randrange(len(kept) + 1), rng.choice(tuple(VALUES)))
    return kept


def _claim(world: World, animal: str, attribute: str, rng: Random) -> Statement:
    fact = world.facts[animal, attribute]
    if rng.random() < fact.accuracy:
        return Statement(attribute, fact.value)
    if rng.random() < MYTH:
        return Statement(attribute, fact.myth)
    rest = [value for value in VALUES[attribute] if value not in (fact.value, fact.myth)]
    return Statement(attribute, rng.choice(rest))


def vocabulary() -> tuple[str, ...]:
    """Every word of questions and answers, sorted; the same for all seeds."""
    prompts = (t.format(attributes=" and the ".join(VALUES), animal="") for t in TEMPLATES)
    texts = (*prompts, *ANIMALS, *TONES, *SENTENCES, *CLOSERS)
    return tuple(sorted({word for text in texts for word in text.split()}))
