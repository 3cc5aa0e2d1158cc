"""`alignzoo check FILE --index`: the list of plug-in packages, one entry each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated

from pydantic import Field

from alignzoo.cli.terminal.screen import print_table
from alignzoo.recipe.faults import Fault, validate
from alignzoo.recipe.file import block_of
from alignzoo.recipe.registry import GROUP, KINDS, Registry, load_plugins
from alignzoo.recipe.spec import Spec
from alignzoo.recipe.text import read_source

Plain = Annotated[str, Field(pattern=r"^[^\x00-\x1f|<>`\[\]]+$")]  # a cell of a Markdown table
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]


class Package(Spec):
    """One package that others install beside alignzoo."""

    package: str = Field(
        pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60, description="as `pip install` names it"
    )
    entry_point: str = Field(
        pattern=r"^[a-z_][a-z0-9_]*$", max_length=60, description="its name in the group alignzoo"
    )
    offers: dict[Word, tuple[Word, ...]] = Field(
        min_length=1, description="kind of plug-in -> the names that recipes use"
    )
    summary: Plain = Field(max_length=120, description="what it is for, in one line")
    url: str = Field(
        pattern=r"^https://[A-Za-z0-9.-]+(/[A-Za-z0-9._~/-]*)?$",
        max_length=200,
        description="where its source is",
    )
    licence: Plain = Field(max_length=60, description="an SPDX expression, such as Apache-2.0")


class Index(Spec):
    """The whole file, sorted by package."""

    packages: tuple[Package, ...] = ()


def read_index(file: Path) -> Index:
    """The index in a file. Raises RecipeError with every fault and its line."""
    source = read_source(file)
    index, faults = validate(Index, source.data, block_of(Index))
    found = [*faults, *(_faults(index) if index is not None else ())]
    error = source.error(found)
    if error.problems or index is None:
        raise error
    return index


def index_command(file: Path) -> int:
    """Check an index, and packages that are installed here against what they register; status."""
    registry = load_plugins()
    index = read_index(file)
    rows = [(package.package, *_tried(package, registry)) for package in index.packages]
    if rows:
        print_table(("package", "", "detail"), rows)
    broken = sum(state == "BROKEN" for _, state, _ in rows)
    print(f"{broken} broken" if broken else f"the index is sound: {len(rows)} packages")
    return 1 if broken else 0


def _faults(index: Index) -> Iterator[Fault]:
    """What one entry cannot say by itself: its order, its neighbours, and kinds.

    Two packages may offer one name: `package:name` tells them apart.
    """
    for n, package in enumerate(index.packages):
        found = [*_neighbour_faults(package, index.packages[:n]), *_offer_faults(package)]
        yield from (fault.under(("packages", n)) for fault in found)


def _neighbour_faults(package: Package, earlier: Sequence[Package]) -> Iterator[Fault]:
    if earlier and package.package < earlier[-1].package:
        yield Fault(("package",), f"stands after {earlier[-1].package}; sort by package")
    for key in ("package", "entry_point"):
        if (value := getattr(package, key)) in [getattr(other, key) for other in earlier]:
            yield Fault((key,), f"'{value}' is there already")


def _offer_faults(package: Package) -> Iterator[Fault]:
    for kind in package.offers.keys() - KINDS.keys():
        what = f"no kind of plug-in; kinds are {', '.join(KINDS)}"
        yield Fault(("offers", kind), what, at_key=True)


def _tried(package: Package, registry: Registry) -> tuple[str, str]:
    """What an installed package says of itself, against its entry."""
    try:
        entries = distribution(package.package).entry_points.select(group=GROUP)
    except PackageNotFoundError:
        return "", "not installed here, so only its entry was read"
    if package.entry_point not in entries.names:
        there = ", ".join(sorted(entries.names)) or "none"
        return "BROKEN", f"no entry point '{package.entry_point}' in group {GROUP}; it has {there}"
    said = {kind: set(names) for kind, names in package.offers.items()}
    found = _registered(package.package, registry)
    if said != found:
        return "BROKEN", f"it registers {_listed(found)}, and the index says {_listed(said)}"
    return "kept", _listed(found)


def _registered(package: str, registry: Registry) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for kind, classes in registry.kinds.items():
        for cls in classes.values():
            if _plain(registry.owner(cls).distribution) == package:
                found.setdefault(kind, set()).add(cls.name)  # type: ignore[attr-defined]
    return found


def _listed(offers: Mapping[str, set[str]]) -> str:
    words = [f"{kind} {name}" for kind, names in sorted(offers.items()) for name in sorted(names)]
    return ", ".join(words) or "nothing"


def _plain(name: str) -> str:
    """A distribution's name in the form that pip compares."""
    return name.lower().replace("_", "-").replace(".", "-")
