"""Sections as one HTML file: no request to anywhere, readable without JavaScript.

A content security policy names the digests of the page's own style and script, so that nothing
else runs or loads even where a model's answer looks like HTML.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignzoo.leaderboard.evidence import find_evidence
from alignzoo.leaderboard.fold import Section, typed
from alignzoo.leaderboard.views import view

HERE = Path(__file__).parent
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
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    found = find_evidence(folders, sections, limit)
    style, script = (_source(name) for name in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        views=[view(number, section, found) for number, section in enumerate(sections, 1)],
        origins=[_origin(folder) for folder in folders],
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'",
    )


def _source(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """How a content security policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _origin(folder: Path) -> Origin:
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
