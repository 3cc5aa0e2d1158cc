"""Files that a command is asked to write, looked at before any work is done for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alignzoo.contract.errors import UsageError


def check_outputs(files: Mapping[str, Path | None]) -> None:
    """Option -> file: none may be a folder, and no two the same file.

    Raises UsageError with the options.
    """
    seen: dict[Path, str] = {}
    for option, file in files.items():
        if file is None:
            continue
        if file.is_dir():
            raise UsageError(f"{option} {file}: this is a folder; name a file")
        if other := seen.get(file.resolve()):
            raise UsageError(f"{option} {file}: {other} is the same file; name another")
        seen[file.resolve()] = option
