"""Where the reference material beside the repository lies, and what happens without it."""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / ".." / "shared"
ABSENT = "the shared reference folder is absent"


def shared_folder() -> Path:
    """The folder named by ALIGNZOO_SHARED, by default the one beside the repository."""
    return Path(os.environ.get("ALIGNZOO_SHARED", BESIDE)).resolve()


def shared(*parts: str) -> Path:
    """A file of the shared folder; skips the test without the folder, fails it without the file."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"{ABSENT} (ALIGNZOO_SHARED names another place)")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.fail(f"{folder.name}/{'/'.join(parts)} is missing although the folder is there")
    return path
