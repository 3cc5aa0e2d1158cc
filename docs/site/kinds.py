"""What authors of plug-ins look up: the fields of every batch, the package that `new` writes."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from string import Template

from markup import code, table

import alignzoo
from alignzoo import Batch
from alignzoo.cli.authoring.scaffold import TEMPLATE, files, names

COMMENT = re.compile(r"^ {4}(\w+): Tensor  # (.+)$", re.MULTILINE)
LANGUAGES = {"py": "python", "yaml": "yaml", "toml": "toml"}
LEFT_OUT = ("README.md", "pyproject.toml")  # a reader knows these


def exported() -> list[type[Batch]]:
    """`Batch` and every kind of it that plug-ins can import, the plain ones first."""
    found = {getattr(alignzoo, name) for name in alignzoo.__all__ if name.endswith("Batch")}
    return sorted(found, key=lambda kind: (len(kind.__mro__), kind.__name__))


def batches() -> Iterator[str]:
    """A section for each kind of batch: its fields and what it derives from them."""
    for kind in exported():
        yield f"#### {kind.__name__}\n"
        yield inspect.cleandoc(kind.__doc__ or "") + "\n"
        notes = dict(COMMENT.findall(inspect.getsource(kind)))
        own = [f.name for f in dataclasses.fields(kind) if f.name in notes]
        rows = [(code(name), *_shape(notes[name])) for name in own]
        properties = {n: x for n, x in vars(kind).items() if isinstance(x, property)}
        rows += [(code(name), *_derived(x)) for name, x in properties.items()]
        yield from table(("name", "shape and type", "meaning"), rows)


def _shape(note: str) -> tuple[str, str]:
    """Shape and meaning, from "[B, S] bool: meaning"."""
    shape, _, meaning = note.partition(": ")
    return code(shape), meaning


def _derived(found: property) -> tuple[str, str]:
    """The same of a property; the docstring of one that is no tensor has no shape."""
    kind, note = found.fget.__annotations__["return"], inspect.getdoc(found) or ""
    return _shape(note) if kind == "Tensor" else (code(kind), note)


def package(kind: str) -> Iterator[str]:
    """The files that `alignzoo new KIND my_KIND` writes."""
    words = names(f"my_{kind}")
    shown = [(path, source) for path, source in files(kind).items() if path not in LEFT_OUT]
    for path, source in sorted(shown, key=lambda pair: not pair[0].startswith("$package")):
        name = Template(path).substitute(words)
        text = (TEMPLATE / source).read_text(encoding="utf-8")
        yield f"`{words['distribution']}/{name}`\n"
        yield f"```{LANGUAGES[name.rpartition('.')[2]]}"
        yield Template(text).substitute(words).rstrip("\n")
        yield "```\n"
