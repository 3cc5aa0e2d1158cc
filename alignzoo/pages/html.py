"""A template as one HTML file: style and script inside, and a policy that allows no other.

The content security policy names the digests of the page's own style and script, so that nothing
else runs or loads even where a model's answer looks like HTML.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.pages.plain import visible

PAGES = Path(__file__).parent  # shell.html.j2 and drawing.html.j2, which templates build on


@dataclass(frozen=True)
class Source:
    """A folder with templates, and the styles and scripts in it that the page needs, in order."""

    folder: Path
    styles: Sequence[str] = ()
    scripts: Sequence[str] = ()
    reads: str = ""  # what the policy allows beyond itself, such as "connect-src 'self'"


BASE = Source(PAGES, styles=("base.css", "drawing.css"))


def render(template: str, sources: Sequence[Source], values: Mapping[str, Any]) -> str:
    """The page of a template that extends shell.html.j2 and lies in one of the sources.

    Every value is escaped, and shown with its acting characters made visible; one that is missing
    is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    style = "".join(_read(s.folder, name) for s in (BASE, *sources) for name in s.styles)
    script = "".join(_read(s.folder, name) for s in sources for name in s.scripts)
    environment = Environment(
        loader=FileSystemLoader([*(s.folder for s in sources), PAGES]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        values, style=Markup(style), script=Markup(script), policy=_policy(style, script, sources)
    )


def _read(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def _shown(value: object) -> object:
    """Plain text without acting characters; what templates themselves made stays."""
    from markupsafe import Markup

    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _policy(style: str, script: str, sources: Sequence[Source]) -> str:
    scripts = _digest(script) if script else "'none'"
    parts = ["default-src 'none'", "img-src data:", f"style-src {_digest(style)}"]
    parts += [f"script-src {scripts}", *(s.reads for s in sources if s.reads)]
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def _digest(text: str) -> str:
    """How a content security policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
