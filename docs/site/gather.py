"""Which files are pages of the site, where they stand in it, and how their links follow them.

Pages are written for the repository: their links are paths of files. Here every page gets its
place, every link to a page becomes one to that place, and every other linked file comes along.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import keys
import kinds
import methods

ROOT = Path(__file__).resolve().parents[2]
FILES = "files"  # folder of the site for linked files that are no pages

NAVIGATION = {  # heading -> pages in their order; one that is not there is left out
    "Begin": ("start", "methods/index", "findings"),
    "Use": ("recipes", "data", "evaluation", "report", "reproduce", "lens", "metrics", "from-trl"),
    "Grow": ("scaling", "memory", "performance", "reliability"),
    "Extend": ("write-a-plugin", "packages/index", "plugins", "contributing"),
    "Look up": ("parity", "benchmarks/README", "changelog"),
}
REST = "Look up"  # where pages of docs/ stand that nobody has placed
ALONE = {  # files of the repository that are pages, beside docs/*.md
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
    "SECURITY.md": "security",
    "README.md": "index",  # links to it lead to the site's own first page
}
SECTIONS = {"README.md#the-zoo": "methods/index"}  # sections of files that are pages of the site
MARKER = re.compile(r"^<!-- site: (\w+)((?: \w+)*) -->$", re.MULTILINE)
REPOSITORY = re.compile(r"^<!-- repository -->\n.*?^<!-- /repository -->\n", re.M | re.S)
FENCES = re.compile(r"(^```.*?^```$|^ {4}.*?$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(`[^`]*`)|(\]\()([^)\s]+)(\))")
GENERATORS: dict[str, Callable[..., Iterator[str]]] = {
    "recipe_keys": keys.page,
    "batches": kinds.batches,
    "package": kinds.package,
}


def pages() -> dict[str, str]:
    """File of the repository -> page of the site."""
    found = {f"docs/{path.name}": path.stem for path in sorted((ROOT / "docs").glob("*.md"))}
    for path in sorted((ROOT / "benchmarks").rglob("*.md")):
        found[str(path.relative_to(ROOT))] = str(path.relative_to(ROOT).with_suffix(""))
    owned = methods.by_package()
    for path in sorted((ROOT / "plugins").glob("*/README.md")):
        package = path.parent.name
        page = f"methods/{owned[package][0]}" if package in owned else f"packages/{package}"
        found[str(path.relative_to(ROOT))] = page
    return ALONE | found | {"docs/index.md": "index"}


def gather(target: Path) -> None:
    """Write every source page, and the files they need, into an empty folder."""
    places = pages()
    for file, page in places.items():
        if file != "README.md" and not page.startswith("methods/"):
            text = (ROOT / file).read_text(encoding="utf-8")
            _write(
                target,
                page,
                Moved(file, page, places, target).text(
                    MARKER.sub(_generated, REPOSITORY.sub("", text))
                ),
            )
    for package, names in methods.by_package().items():
        file = f"plugins/{package}/README.md"
        for name in names:
            page = f"methods/{name}"
            text = "\n".join(methods.page(name, (ROOT / file).read_text(encoding="utf-8")))
            _write(target, page, Moved(file, page, places, target).text(text))
    _write(target, "methods/index", "\n".join(methods.overview()))
    _write(target, "packages/index", "\n".join(_packages(places)))
    navigate(target)


def _generated(marker: re.Match[str]) -> str:
    name, words = marker[1], marker[2].split()
    return "\n".join(GENERATORS[name](*words))


class Moved:
    """A page whose links are followed from its file to its place in the site."""

    def __init__(self, file: str, page: str, places: dict[str, str], target: Path) -> None:
        self.file, self.page, self.places, self.target = file, page, places, target

    def text(self, text: str) -> str:
        """The page with links of the site; code stays as it is."""
        parts = FENCES.split(text)
        return "".join(x if n % 2 else LINK.sub(self._link, x) for n, x in enumerate(parts))

    def _link(self, found: re.Match[str]) -> str:
        if found[1]:
            return found[1]
        address, _, anchor = found[3].partition("#")
        if not address or "://" in address or address.startswith("mailto:"):
            return found[0]
        named = os.path.normpath(PurePosixPath(self.file).parent / address)
        section = SECTIONS.get(f"{named}#{anchor}")
        there = f"{section}.md" if section else self._followed(named)
        seen = os.path.relpath(there, PurePosixPath(self.page).parent)
        return found[2] + seen + (f"#{anchor}" if anchor and not section else "") + found[4]

    def _followed(self, named: str) -> str:
        """Where a file of the repository stands in the site."""
        if named in self.places:
            there = f"{self.places[named]}.md"
        elif (ROOT / named).is_dir() and f"{named}/README.md" in self.places:
            there = f"{self.places[f'{named}/README.md']}.md"
        elif (ROOT / named).is_file():
            there = f"{FILES}/{named}"
            (self.target / there).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / named, self.target / there)
        else:
            raise SystemExit(f"{self.file}: the link to {named} leads nowhere")
        return there


def _packages(places: dict[str, str]) -> Iterator[str]:
    """The list of plug-ins that are no methods."""
    own = sorted(page for page in places.values() if page.startswith("packages/"))
    yield "# Plug-ins that are no methods\n"
    yield "Judges, benchmarks, worlds to train in and rollout engines that come with alignzoo.\n"
    yield from _tree([page.removeprefix("packages/") for page in own], shown=True)


def navigate(target: Path) -> None:
    """Hang every page below the first one, in the order of the navigation."""
    there = {str(p.relative_to(target).with_suffix("")) for p in target.rglob("*.md")}
    there -= {page for page in there if page.startswith(f"{FILES}/")}
    benchmarks = sorted(
        p for p in there if p.startswith("benchmarks/") and not p.endswith("README")
    )
    placed = {page for pages in NAVIGATION.values() for page in pages} | {"index"}
    rest = sorted(page for page in there - placed if "/" not in page)
    lines = []
    for heading, pages in NAVIGATION.items():
        named = [page for page in pages if page in there] + (rest if heading == REST else [])
        lines += ["", *_tree(named, caption=heading)]
    with (target / "index.md").open("a", encoding="utf-8") as file:
        file.write("\n".join([*lines, ""]))
    with (target / "benchmarks" / "README.md").open("a", encoding="utf-8") as file:
        named = [page.removeprefix("benchmarks/") for page in benchmarks]
        file.write("\n".join(["", "## Pages", "", *_tree(named, shown=True), ""]))


def _tree(names: list[str], *, caption: str = "", shown: bool = False) -> Iterator[str]:
    yield "```{toctree}"
    yield ":maxdepth: 1"
    if not shown:
        yield ":hidden:"
    if caption:
        yield f":caption: {caption}"
    yield from ("", *names, "```")


def _write(target: Path, page: str, text: str) -> None:
    path = target / f"{page}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
