"""Beginnings of stories from templates: a character, a habit, an event, sometimes a cue to end."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from alignzoo import Dataset, PromptSample, option

GIRLS = ("Lily", "Lucy", "Mia", "Sue", "Anna", "Sara", "Amy", "Jane", "Emma", "Daisy")
BOYS = ("Tim", "Timmy", "Tom", "Ben", "Max", "Sam", "Jack", "Bob", "Billy", "Spot")
ANIMALS = ("dog", "cat", "bird", "bunny", "bear", "fish", "mouse", "frog", "duck", "fox")
ADJECTIVES = ("little", "happy", "brave", "kind", "small", "curious")
ACTIVITIES = (
    "play outside",
    "sing songs",
    "run and jump",
    "read books",
    "draw pictures",
    "dance",
    "play with blocks",
    "climb trees",
)
PLACES = ("park", "garden", "beach", "forest", "farm", "store", "lake", "playground")
OBJECTS = ("ball", "book", "toy car", "kite", "flower", "cookie", "box", "doll")
EVENTS = (
    "lost a toy and felt sad",
    "found a {object}",
    "saw a {object}",
    "fell down and got hurt",
    "met a new friend",
    "heard a loud noise",
    "wanted to share a {object}",
)
OPENINGS = (
    "Once upon a time, there was a {adjective} {kind} named {name}.",
    "One day, a {adjective} {kind} named {name} went to the {first_place}.",
    "{name} was a {adjective} {kind}.",
)
MIDDLE = " {pronoun} loved to {activity}. One day, {name} went to the {place} and {event}."
TAILS = (" In the end,", " At last,", " From that day on,")

HELD_OUT_SHARE = 1 / 8


@dataclass(frozen=True)
class StoryPrompts(Dataset):
    """Different beginnings of a story as plain text; the character's name is in `meta["name"]`.

    Half of them end after the event, half go on with the first words of an ending. No training
    prompt is ever a held-out prompt, whatever the sizes and seeds; both come from the same
    templates and names, so the held-out ones measure generalisation within this distribution.
    """

    name = "stories.prompts"
    size: int = option(1024, "number of prompts, all different", gt=0, le=100_000)
    held_out: bool = option(False, "the prompts kept for evaluation instead of those for training")

    def __len__(self) -> int:
        """What a plan counts steps from."""
        return self.size

    def samples(self, seed: int) -> Iterator[PromptSample]:
        """The prompts in the order in which they are drawn."""
        draw = random.Random(f"stories/{seed}/{self.held_out}")
        seen: set[str] = set()
        while len(seen) < self.size:
            text, name = draw_prompt(draw)
            if is_held_out(text) == self.held_out and text not in seen:
                seen.add(text)
                yield PromptSample(text, {"name": name})


def draw_prompt(draw: random.Random) -> tuple[str, str]:
    """(text, name of the character) of a random prompt."""
    kind = draw.choice(("girl", "boy", "animal"))
    name = draw.choice({"girl": GIRLS, "boy": BOYS, "animal": GIRLS + BOYS}[kind])
    template = draw.choice(OPENINGS) + MIDDLE + (draw.choice(TAILS) if draw.random() < 0.5 else "")
    text = template.format(
        name=name,
        kind=draw.choice(ANIMALS) if kind == "animal" else kind,
        adjective=draw.choice(ADJECTIVES),
        first_place=draw.choice(PLACES),
        pronoun="She" if name in GIRLS else "He",
        activity=draw.choice(ACTIVITIES),
        place=draw.choice(PLACES),
        event=draw.choice(EVENTS).format(object=draw.choice(OBJECTS)),
    )
    return text, name


def is_held_out(text: str) -> bool:
    """Whether a prompt is kept for evaluation: decided by its text alone, so for good."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < HELD_OUT_SHARE * 2**64
