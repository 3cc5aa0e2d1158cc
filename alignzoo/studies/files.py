"""A result as files: Markdown, JSON, figure and page; and the JSON read back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from alignzoo.contract.errors import DataError
from alignzoo.store.files import write_text
from alignzoo.studies.facts import Result
from alignzoo.studies.page import render_figure, render_result
from alignzoo.studies.text import markdown


def write_result(result: Result, folder: Path, name: str) -> list[Path]:
    """Write NAME.md, .json, .html, and .svg where there is something to draw; the files."""
    text = json.dumps(asdict(result), indent=1, ensure_ascii=False, allow_nan=False)
    figure = render_figure(result)
    written = {
        folder / f"{name}.md": markdown(result, f"{name}.svg" if figure else ""),
        folder / f"{name}.json": text + "\n",
        folder / f"{name}.html": render_result(result, f"{name}.json"),
        **({folder / f"{name}.svg": figure} if figure else {}),
    }
    for file, content in written.items():
        write_text(file, content)
    return list(written)


def read_result(file: Path) -> Result:
    """A result from its JSON; raises DataError where it is none."""
    try:
        return TypeAdapter(Result).validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{file}: no result of `alignzoo reproduce` ({why})") from error
