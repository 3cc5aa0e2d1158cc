"""Sections as one HTML file: no request to anywhere, readable without JavaScript."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from alignzoo.leaderboard.bundle import read_bundle
from alignzoo.leaderboard.evidence import find_evidence
from alignzoo.leaderboard.fold import Section, typed
from alignzoo.leaderboard.views import view
from alignzoo.pages import Source, render

SOURCE = Source(Path(__file__).parent, styles=("page.css",), scripts=("page.js",))
SAID = {"versions", "plugins", "started"}  # of a run's record
PROMPTS = 100  # prompts per section whose answers are on the page


@dataclass(frozen=True)
class Origin:
    """A run, and what it takes to repeat it."""

    name: str
    recipe: str  # its recipe with every default
    versions: Mapping[str, str]
    plugins: Sequence[str]
    started: str


def render_page(sections: Sequence[Section], folders: Sequence[Path], limit: int = PROMPTS) -> str:
    """The leaderboard of some runs with the answers to at most `limit` prompts per section.

    Raises DataError when a run's files are damaged.
    """
    found = find_evidence(folders, sections, limit)
    values = {
        "views": [view(number, section, found) for number, section in enumerate(sections, 1)],
        "origins": [_origin(folder) for folder in folders],
    }
    return render("page.html.j2", [SOURCE], values)


def _origin(folder: Path) -> Origin:
    if folder.is_file():
        sent = read_bundle(folder)
        text = yaml.safe_dump(dict(sent.recipe), sort_keys=False, allow_unicode=True)
        return Origin(sent.run, text, sent.versions, sent.plugins, sent.started)
    record = _record(folder / "run.json")
    recipe = folder / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else ""
    bare = Origin(folder.resolve().name, text, {}, (), "")
    origin = replace(bare, **{key: record[key] for key in SAID & record.keys()})
    try:
        return typed(origin)
    except ValueError:  # a damaged record tells nothing
        return bare


def _record(file: Path) -> dict[str, Any]:
    """What a run says of itself; nothing where the file is missing or cut."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
