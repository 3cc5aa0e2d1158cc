"""YAML text and `--set` overrides -> plain values, and where each of them was written.

The scalars are those of YAML 1.2: 1e-6 is a number, yes is text, a date is text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any, TypeAlias

import yaml

from alignzoo.contract.errors import Problem, RecipeError, suggest
from alignzoo.recipe.faults import Fault, Path

MAX_BYTES = 1_000_000
MAX_VALUES = 50_000  # after aliases are expanded
TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, order=True)
class Place:
    """Where a value was written; line and column count from 1, line 0 is an override."""

    line: int
    column: int
    origin: str

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}:{self.column}" if self.line else self.origin


Places: TypeAlias = dict[Path, tuple[Place, Place]]  # of the key, of the value


@dataclass(frozen=True)
class Source:
    """What was written: plain values, their places, and what is wrong with the text itself."""

    data: Any
    places: Places = field(default_factory=dict)
    problems: list[tuple[Place, Problem]] = field(default_factory=list)

    def place(self, fault: Fault) -> Place:
        """The place of a fault; of the nearest enclosing value where nothing was written."""
        path = fault.path
        while path not in self.places:
            path = path[:-1]
        key, value = self.places[path]
        return key if fault.at_key and path == fault.path else value

    def error(self, faults: Iterable[Fault]) -> RecipeError:
        """All problems (perhaps none) in the order of the text, those of overrides last."""
        located = [(self.place(f), f) for f in faults]
        found = [*self.problems, *((p, _problem(p, f.path, f.what)) for p, f in located)]
        found.sort(key=lambda pair: (pair[0].line == 0, pair[0].line, pair[0].column))
        return RecipeError([problem for _, problem in found])


def read_source(file: File, overrides: Sequence[str] = ()) -> Source:
    """Read a recipe file and apply the overrides, in order.

    Raises RecipeError where nothing can be read: no such file, not UTF-8, not YAML, empty.
    """
    text = _read_text(file)
    source = _parse(text, str(file))
    if not isinstance(source.data, dict):
        what = "is empty" if source.data is None else "a recipe is a block of keys"
        raise RecipeError([Problem(f"{file}:1:1", f"{what}; it starts with `name:`")])
    for override in overrides:
        _apply(source, override)
    return source


def read_value(text: str) -> Any:
    """One value on its own, such as `{temperature: null}`.

    Raises RecipeError when it is no YAML.
    """
    found = _parse(text, text, override=True)
    if found.problems:
        raise found.error(())
    return found.data


def values_of(overrides: Sequence[str]) -> Any:
    """The plain values that `key.path=value` words make by themselves.

    Raises RecipeError with every word that cannot be read.
    """
    start = Place(0, 0, "--set")
    source = Source({}, {(): (start, start)})
    for override in overrides:
        _apply(source, override)
    if source.problems:
        raise source.error(())
    return source.data


# --- text ------------------------------------------------------------------------------------


def _read_text(file: File) -> str:
    try:
        data = file.read_bytes()[: MAX_BYTES + 1]
    except OSError as error:
        raise RecipeError([Problem(str(file), f"cannot be read: {error.strerror}")]) from error
    if len(data) > MAX_BYTES:
        raise RecipeError([Problem(str(file), f"is larger than {MAX_BYTES:,} bytes: no recipe")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        what = f"byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        raise RecipeError([Problem(f"{file}:{_position(before)}", what)]) from error


def _position(before: str) -> str:
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def _parse(text: str, origin: str, *, override: bool = False) -> Source:
    """The values of one YAML document; raises RecipeError when it is none."""
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark and not override else origin
        raise RecipeError([Problem(place, f"not YAML: {_cause(error)}")]) from error
    except yaml.reader.ReaderError as error:
        place = origin if override else f"{origin}:{_position(text[: error.position])}"
        what = f"character {error.character:#04x} is not allowed in YAML"
        raise RecipeError([Problem(place, what)]) from error
    except RecursionError as error:
        raise RecipeError([Problem(origin, "is nested too deeply")]) from error
    reader = _Reader(origin, override)
    start = Place(0, 0, origin) if override else Place(1, 1, origin)
    reader.source.places[()] = (start, start)
    data = None if root is None else reader.value(root, ())
    return Source(data, reader.source.places, reader.source.problems)


def _cause(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars instead of those of 1.1."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
        r"|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(TAG + _tag, re.compile(f"^(?:{_pattern})$"), _first)

_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    "str": str,
}


class _Reader:
    """Turns nodes into plain values and notes where they stand."""

    def __init__(self, origin: str, override: bool) -> None:
        self.origin = origin
        self.override = override
        self.source = Source(None)
        self.count = 0
        self.enclosing: set[int] = set()

    def place(self, node: yaml.Node) -> Place:
        if self.override:
            return Place(0, 0, self.origin)
        return Place(node.start_mark.line + 1, node.start_mark.column + 1, self.origin)

    def problem(self, node: yaml.Node, path: Path, what: str) -> None:
        place = self.place(node)
        self.source.problems.append((place, _problem(place, path, what)))

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        if self.count > MAX_VALUES or id(node) in self.enclosing:
            what = "an alias refers to a block that holds it"
            if self.count > MAX_VALUES:
                what = f"aliases expand to more than {MAX_VALUES:,} values"
            raise RecipeError([_problem(self.place(node), path, what)])
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        self.enclosing.add(id(node))
        value = (
            self.mapping(node, path)
            if isinstance(node, yaml.MappingNode)
            else [self.item(child, (*path, index)) for index, child in enumerate(node.value)]
        )
        self.enclosing.discard(id(node))
        return value

    def item(self, node: yaml.Node, path: Path) -> Any:
        self.source.places[path] = (self.place(node), self.place(node))
        return self.value(node, path)

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind = node.tag.removeprefix(TAG)
        if kind not in _SCALARS:
            self.problem(node, path, f"the tag {node.tag} is not allowed in a recipe")
            return node.value
        try:
            return _SCALARS[kind](node.value)
        except ValueError:
            self.problem(node, path, f"cannot be read as {kind}")
            return None

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem(key, path, "a key must be text")
                continue
            here = (*path, key.value)
            if key.value in found:
                first = self.source.places[here][0]
                self.problem(key, here, f"duplicate key; it is already on line {first.line}")
                continue
            self.source.places[here] = (self.place(key), self.place(child))
            found[key.value] = self.value(child, here)
        return found


def _problem(place: Place, path: Path, what: str) -> Problem:
    dotted = ".".join(map(str, path))
    return Problem(f"{place}: {dotted}" if dotted else str(place), what)


# --- overrides -------------------------------------------------------------------------------


def _apply(source: Source, override: str) -> None:
    """Put one `key.path=value` into the values, in place; what fails is noted as a problem."""
    place = Place(0, 0, f"--set {override}")
    key, equals, text = override.partition("=")
    if not equals or not key.strip(". "):
        problem = _problem(place, (), "write it as key.path=value")
        source.problems.append((place, problem))
        return
    try:
        parsed = _parse(text, place.origin, override=True)
        path = _put(source, key.strip().split("."), parsed.data, place)
    except RecipeError as error:
        source.problems.extend((place, problem) for problem in error.problems)
        return
    source.problems.extend(parsed.problems)
    for old in [p for p in source.places if p[: len(path)] == path]:
        del source.places[old]
    source.places.update({path + p: places for p, places in parsed.places.items()})


def _put(source: Source, words: list[str], value: Any, place: Place) -> Path:
    """Store a value under a path in words; returns the path in keys and indices."""
    inside: Any = source.data
    path: Path = ()
    while True:
        step, words = _step(inside, words, path, place)
        path = (*path, step)
        if not words:
            inside[step] = value
            return path
        inside = _enter(source, inside, path, place)


def _step(inside: Any, words: list[str], path: Path, place: Place) -> tuple[str | int, list[str]]:
    """The next key, or the index that a number or the longest fitting name stands for."""
    if isinstance(inside, dict):
        return words[0], words[1:]
    if not isinstance(inside, list):
        raise RecipeError([_problem(place, path, "is a value, nothing can be set inside it")])
    names = {_entry_name(entry): index for index, entry in reversed(list(enumerate(inside)))}
    for length in range(len(words), 0, -1):
        name = ".".join(words[:length])
        if name in names:
            return names[name], words[length:]
    if words[0].isdecimal() and int(words[0]) < len(inside):
        return int(words[0]), words[1:]
    near = suggest(words[0], [name for name in names if name])
    raise RecipeError([_problem(place, path, f"there is no '{words[0]}' here{near}")])


def _entry_name(entry: Any) -> str:
    """What an override may call an entry of a list: its name, or its benchmark."""
    if not isinstance(entry, dict):
        return ""
    return str(entry.get("name", entry.get("benchmark", "")))


def _enter(source: Source, inside: Any, path: Path, place: Place) -> Any:
    """The block at the last step of the path; one that is not there yet is made."""
    child = inside.get(path[-1]) if isinstance(inside, dict) else inside[path[-1]]
    if child is None:
        child = {}
        source.places[path] = (place, place)
    elif isinstance(child, str) and path[-1] == "data":  # the short form of `data: {name: ...}`
        child = {"name": child}
    inside[path[-1]] = child
    return child
