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
    """Write NAME.md, .json, .html, and .svg where there are curves; the files."""
    page, numbers = folder / f"{name}.html", folder / f"{name}.json"
    text = json.dumps(asdict(result), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(numbers, text + "\n")
    write_text(page, render_result(result, numbers.name))
    figure = folder / f"{name}.svg"
    if result.pictures:
        write_text(figure, render_figure(result))
    write_text(folder / f"{name}.md", markdown(result, figure.name if result.pictures else ""))
    return [folder / f"{name}.md", numbers, page, *([figure] if result.pictures else [])]


def read_result(file: Path) -> Result:
    """A result from its JSON; raises DataError where it is none."""
    try:
        return TypeAdapter(Result).validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{file}: no result of `alignzoo reproduce` ({why})") from error
