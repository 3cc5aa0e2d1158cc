"""What is wrong inside a block of values, by path; `recipe_text` knows where a path was written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError, to_json

from alignzoo.contract.errors import Problem, RecipeError, suggest
from alignzoo.recipe.foreign import hint
from alignzoo.recipe.mixture import spoken

Path: TypeAlias = tuple[str | int, ...]  # ("stages", 0, "with", "beta")
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong at a path; `at_key` when the key itself is wrong, not its value."""

    path: Path
    what: str
    at_key: bool = False

    def under(self, prefix: Path) -> Fault:
        """The same fault, seen from an enclosing block."""
        return replace(self, path=prefix + self.path)


class FaultyRecipe(RecipeError):
    """Faults of a recipe that was read; who has its text can say where they stand in it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        """`faults` start at the recipe's keys."""
        self.faults = tuple(faults)
        super().__init__([Problem(".".join(map(str, f.path)), f.what) for f in faults])


@dataclass(frozen=True)
class Block:
    """The keys a block may hold, in words: "unknown <noun> (<owner> takes: <keys>)"."""

    noun: str
    owner: str
    keys: tuple[str, ...]

    def unknown(self, key: str) -> str:
        """The sentence about a key that the block does not know."""
        takes = f"takes: {', '.join(self.keys)}" if self.keys else f"takes no {self.noun}s"
        near = hint(key, self.keys) or suggest(key, self.keys)
        return f"unknown {self.noun}{near} ({self.owner} {takes})"


BlockAt: TypeAlias = Callable[[Path], Block]


def validate(
    model: type[Model], value: Any, block_at: BlockAt
) -> tuple[Model | None, tuple[Fault, ...]]:
    """The typed value, or the faults of all its parts.

    JSON rules, strictly: no text where a number is expected, no true for 1, lists for tuples.
    """
    try:
        text = to_json(value, inf_nan_mode="constants", fallback=repr)
    except PydanticSerializationError:
        return None, (
            Fault((), "holds half a character (not UTF-8), or a block that holds itself"),
        )
    try:
        return model.model_validate_json(text, strict=True, by_alias=True, by_name=False), ()
    except ValidationError as error:
        details = error.errors(include_url=False)
    causes = (detail for detail in details if detail["type"] not in _CONSEQUENCES)
    return None, _merged(_fault(detail, value, block_at) for detail in causes)


_CONSEQUENCES = {"default_factory_not_called"}  # of a fault that is reported itself


def show(value: Any) -> str:
    """A value as a recipe would write it, shortened: 'text', 0.1, true, null, [1, 2]."""
    if isinstance(value, str):
        text = repr(value)
    else:
        text = json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _fault(detail: ErrorDetails, value: Any, block_at: BlockAt) -> Fault:
    path = spoken(tuple(detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return Fault(path, block_at(path[:-1]).unknown(str(path[-1])), at_key=True)
    if detail["type"] == "missing":
        return Fault(path, "is missing")
    return Fault(_existing(path, value), _sentence(detail))


def _existing(path: Path, value: Any) -> Path:
    """The part of the path that the value has: a union appends the names of its members."""
    for depth, step in enumerate(path):
        inside = isinstance(value, Mapping) and step in value
        if not inside and not (isinstance(value, Sequence) and isinstance(step, int)):
            return path[:depth]
        value = value[step]
    return path


def _sentence(detail: ErrorDetails) -> str:
    context, given = detail.get("ctx", {}), show(detail["input"])
    if detail["type"] == "value_error":
        return str(context["error"])
    if detail["type"] == "string_pattern_mismatch":
        return f"may hold only letters, digits, '.', '_' and '-', not {given}"
    text = detail["msg"].replace("Input should", "must")
    for theirs, ours in _WORDS.items():
        text = text.replace(theirs, ours)
    near = ""
    if detail["type"] == "literal_error":
        near = suggest(str(detail["input"]), _choices(str(context["expected"])))
    return f"{text}, not {given}{near}"


_WORDS = {
    "be an object": "be a block of keys",
    "be a valid array": "be a list",
    "be a valid string": "be text",
    "be a valid number": "be a number",
    "be a valid integer": "be a whole number",
    "be a valid boolean": "be true or false",
    "be a finite number": "be a finite number",
}


def _choices(expected: str) -> list[str]:
    return [word.strip("' ") for word in expected.replace(" or ", ", ").split(", ")]


def _merged(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """One fault per place: the members of a union each complain about the same value."""
    found: dict[tuple[Path, bool], Fault] = {}
    for fault in faults:
        key = (fault.path, fault.at_key)
        if key not in found:
            found[key] = fault
        elif fault.what not in found[key].what:
            found[key] = replace(fault, what=f"{found[key].what}; or {fault.what}")
    return tuple(found.values())
