"""Names that TRL, HF Trainer, OpenRLHF, verl and LLaMA-Factory use, and ours for them.

A newcomer who writes one of them is told where it stands here, or that the feature is absent and
what serves instead.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.spec import Spec

TABLE = Path(__file__).with_name("foreign.yaml")


@dataclass(frozen=True)
class Names:
    """The table: names are texts of words."""

    ours: Mapping[str, str]  # place here -> names elsewhere
    absent: Mapping[str, str]  # names elsewhere -> what serves instead
    options: frozenset[str]  # of methods


@functools.cache
def names() -> Names:
    """The table, read once."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    absent = {entry["names"]: entry["instead"] for entry in table["absent"]}
    return Names(table["ours"], absent, frozenset(table["options"].split()))


def hint(key: str, keys: tuple[str, ...]) -> str:
    """What to say of a key that a block does not know: "; here it is `train.lr`", or nothing."""
    word = key.lower().replace("-", "_")
    if word in keys:
        return ""
    if word in _table():
        return f"; {_table()[word]}"
    if word in names().options:
        beside = "with" in keys
        what = "an option of the method stands" if beside else "options of the method stand"
        return f"; {what} under {'' if beside else 'its '}`with:`"
    places = [place for place in homes().get(word, ()) if place.rpartition(".")[2] == word]
    if places:
        return f"; it stands elsewhere: {' or '.join(f'`{place}`' for place in places[:2])}"
    return ""


@functools.cache
def _table() -> Mapping[str, str]:
    """Foreign name -> the sentence about it."""
    known = names()
    ours = {word: f"here it is `{at}`" for at, text in known.ours.items() for word in text.split()}
    return ours | {word: why for text, why in known.absent.items() for word in text.split()}


@functools.cache
def homes() -> Mapping[str, tuple[str, ...]]:
    """Own key -> the places where it may stand; those of a stage start at its keys."""
    found: dict[str, list[str]] = {}
    for place in _places(Recipe, ""):
        words = found.setdefault(place.rpartition(".")[2], [])
        if place not in words:
            words.append(place)
    return {key: tuple(sorted(places, key=len)) for key, places in found.items()}


def _places(model: type[Spec], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield f"{prefix}{key}"
        inside = "" if key == "stages" else f"{prefix}{key}."
        for block in _blocks(field.annotation):
            if block is not model:  # the parts of a block are blocks of its kind
                yield from _places(block, inside)


def _blocks(annotation: Any) -> Iterator[type[Spec]]:
    """The blocks inside a type such as `tuple[TrainSpec | GenerateSpec, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation
    for part in get_args(annotation):
        yield from _blocks(part)
