"""Where a benchmark's own files are: questions, references, templates.

They are never part of alignzoo. Each is looked for in the user's folder, then in
`$ALIGNZOO_DATA/<benchmark>`, in an installed package (located, not imported), and on the hub.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alignzoo.contract.errors import DataError

VARIABLE = "ALIGNZOO_DATA"


@dataclass(frozen=True)
class DataFile:
    """One file a benchmark reads."""

    what: str  # "the 805 instructions with the baseline's answers"
    names: tuple[str, ...]  # accepted paths inside the user's folder, first choice first
    get: str  # what to download: "hf download tatsu-lab/alpaca_eval ... --repo-type dataset"
    package: tuple[str, str] | None = None  # installed package, path inside it
    hub: tuple[str, str, str] | None = None  # dataset repository, file, revision
    optional: bool = False


def locate(file: DataFile, benchmark: str, folder: str | None) -> Path:
    """The file's path; the hub is asked last, and only when it may be.

    Raises DataError with one sentence that says what to download and where to put it.
    """
    found = find(file, benchmark, folder) or _from_hub(file)
    if found is None:
        places = " or ".join(str(p) for p in places_of(benchmark, folder))
        raise DataError(
            f"{benchmark}: {file.what} not found; get it with `{file.get}` and put "
            f"{file.names[0]} into {places}"
        )
    return found


def find(file: DataFile, benchmark: str, folder: str | None = None) -> Path | None:
    """The file as far as this machine has it; nothing is downloaded.

    Raises DataError when `folder` is given and is no folder.
    """
    if folder is not None and not Path(folder).is_dir():
        raise DataError(f"{benchmark}: with.data: {folder} is not a folder")
    for place in places_of(benchmark, folder):
        for name in file.names:
            if (place / name).is_file():
                return place / name
    return _in_package(file) or _from_hub(file, offline=True)


def file_digest(path: Path) -> str:
    """Sha256 (hex) of a file's bytes, for `Benchmark.settings`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def places_of(benchmark: str, folder: str | None) -> list[Path]:
    """The folders a user may put files into, first choice first."""
    root = os.environ.get(VARIABLE)
    shared = Path(root) if root else Path.home() / ".cache" / "alignzoo" / "data"
    return [*([Path(folder)] if folder else []), shared / benchmark]


def _in_package(file: DataFile) -> Path | None:
    if file.package is None:
        return None
    name, path = file.package
    spec = importlib.util.find_spec(name)
    roots: Iterable[str] = (spec.submodule_search_locations or ()) if spec else ()
    return next((Path(r) / path for r in roots if (Path(r) / path).is_file()), None)


def _from_hub(file: DataFile, *, offline: bool = False) -> Path | None:
    if file.hub is None:
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    repository, name, revision = file.hub
    try:
        return Path(
            hf_hub_download(
                repository,
                name,
                revision=revision,
                repo_type="dataset",
                local_files_only=offline,
            )
        )
    except (OSError, HfHubHTTPError):
        return None
