"""Where samples come from: files, saved datasets, the hub."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from alignzoo.contract.errors import DataError, suggest
from alignzoo.contract.types import PairSample, Sample
from alignzoo.data.collecting import uncollected
from alignzoo.data.conversions import CONTENTS
from alignzoo.data.messages import describe
from alignzoo.data.rows import Reading, read_row

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

PlacedRows: TypeAlias = Iterator[tuple[str, Mapping[str, Any] | DataError]]

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
SAVED_MARKS = ("dataset_info.json", "state.json", "dataset_dict.json")
SHOWN = 10  # bad rows that an error lists


@dataclass(frozen=True)
class DataSource:
    """A file, a saved dataset's folder or a hub name, and which of its samples to use."""

    name: str
    subset: str | None = None
    split: str = "train"
    limit: int | None = None  # of good samples, after `skip` of them
    skip: int = 0
    swap: bool = False  # exchange chosen and rejected
    # Tolerated share of unusable rows among the rows read; None: none, and no recipe may change it.
    max_bad: float | None = 0.0


@dataclass(frozen=True)
class Loaded:
    """Samples, where each was read, and what became of the rest of the rows and columns."""

    samples: tuple[Sample, ...]
    bad: tuple[str, ...]  # "file:line: cause"
    places: tuple[str, ...]  # "file:line", one per sample
    read: int  # rows read, bad and skipped ones included
    skipped: int = 0
    used: Mapping[str, int] = field(default_factory=dict)  # column -> rows that a sample uses it of
    ignored: Mapping[str, int] = field(default_factory=dict)  # column -> rows in which it says more


@uncollected()
def load_samples(source: DataSource) -> Loaded:
    """Read the samples of a source, in its order.

    Raises DataError when the source cannot be read, when more than `max_bad` of the rows read are
    unusable, when nothing is left, or when `swap` meets a sample without chosen and rejected.
    """
    good, bad, read = _sort_rows(source)
    check_bad(source.name, bad, read, source.max_bad)
    kept = good[source.skip :]
    if not read:
        raise DataError(f"{source.name}: has no rows")
    if not kept:
        raise DataError(
            f"{source.name}: {len(good)} usable samples, and skip: {source.skip} leaves none"
        )
    samples = (_swapped(row.sample, at) if source.swap else row.sample for at, row in kept)
    return Loaded(
        tuple(samples),
        tuple(bad),
        tuple(place for place, _ in kept),
        read,
        len(good) - len(kept),
        Counter(name for _, row in kept for name in row.used),
        Counter(name for _, row in kept for name in row.ignored),
    )


def _sort_rows(source: DataSource) -> tuple[list[tuple[str, Reading]], list[str], int]:
    """Good rows with their places, bad ones, and the number of rows read."""
    good: list[tuple[str, Reading]] = []
    bad: list[str] = []
    for place, row in _rows(source):
        try:
            if isinstance(row, DataError):
                raise row
            good.append((place, read_row(row)))
        except DataError as error:
            bad.append(f"{place}: {error}")
        if source.limit is not None and len(good) == source.skip + source.limit:
            break
    return good, bad, len(good) + len(bad)


def check_bad(name: str, bad: Sequence[str], read: int, max_bad: float | None) -> None:
    """Raise DataError when more than a share `max_bad` of the rows read cannot be used."""
    if len(bad) <= (max_bad or 0) * read:
        return
    more = f"\n... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    remedy = "; repair them, or take them out of the file"
    if max_bad is not None:
        remedy = (
            f", more than data.max_bad: {max_bad:g} allows; repair them, or raise data.max_bad to "
            f"at least {len(bad) / read:.2g} to leave them out"
        )
    rows = "\n".join(bad[:SHOWN])
    raise DataError(f"{name}: {len(bad)} of {read} rows cannot be used{remedy}\n{rows}{more}")


def _swapped(sample: Sample, place: str) -> PairSample:
    if not isinstance(sample, PairSample):
        raise DataError(
            f"{place}: swap needs chosen and rejected; the row has {CONTENTS[type(sample)]}"
        )
    return replace(sample, chosen=sample.rejected, rejected=sample.chosen)


def _rows(source: DataSource) -> PlacedRows:
    path = Path(source.name)
    if path.is_dir() and _is_saved(path):
        return _saved_rows(path, source.split)
    if path.exists() or path.is_absolute() or path.name.endswith(SUFFIXES):
        return read_rows(path)
    return _hub_rows(source)


# --- files -----------------------------------------------------------------------------------


def read_rows(path: Path) -> PlacedRows:
    """Rows of a file with their places ("data.jsonl:17", "data.parquet: row 17").

    A row that cannot be parsed comes as a DataError; a file that cannot be read raises one, also
    when damage shows up only half-way.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.is_dir():
        raise DataError(f"{path}: a folder, neither a data file nor a saved dataset")
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return _json_lines(path)
    if path.name.endswith((".json", ".json.gz")):
        return _json_list(path)
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    raise DataError(f"{path}: unknown kind of file; known are {', '.join(SUFFIXES)}")


def _json_lines(path: Path) -> PlacedRows:
    number = 0
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", _json_row(line)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}:{number + 1}: {_damage(error)}") from error


def _json_row(line: bytes) -> Mapping[str, Any] | DataError:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return DataError(f"not UTF-8 (byte {error.start + 1} of the line)")
    except (ValueError, RecursionError) as error:
        return DataError(f"not JSON: {error}")
    return _row(row)


def _json_list(path: Path) -> PlacedRows:
    try:
        data = path.read_bytes()
        rows = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (ValueError, RecursionError) as error:
        hint = "; one object per line belongs in a .jsonl file"
        raise DataError(f"{path}: not JSON: {error}{hint}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: {_damage(error)}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: not a list of rows")
    return ((f"{path}: row {number}", _row(row)) for number, row in enumerate(rows, 1))


def _row(value: Any) -> Mapping[str, Any] | DataError:
    return value if isinstance(value, dict) else DataError(f"{describe(value)}, not an object")


def _parquet_rows(path: Path) -> PlacedRows:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", _without_nulls(row)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: row {number + 1}: {_damage(error)}") from error


def _damage(error: Exception) -> str:
    first_line = (str(error) or type(error).__name__).splitlines()[0]
    return f"the file cannot be read on, it may be damaged or cut short ({first_line})"


# --- saved datasets and the hub ----------------------------------------------------------------


def _is_saved(path: Path) -> bool:
    return any((path / mark).is_file() for mark in SAVED_MARKS)


def _saved_rows(path: Path, split: str) -> PlacedRows:
    import datasets

    try:
        data = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever a damaged folder makes the library raise
        raise DataError(f"{path}: a saved dataset, but {_damage(error)}") from error
    return _numbered(_split(data, split, path), f"{path}[{split}]")


def _split(data: Dataset | DatasetDict, split: str, path: Path) -> Dataset:
    """One split of a saved dataset; a dataset saved alone is its only split."""
    known = list(data) if isinstance(data, dict) else [str(data.split or split)]
    if split not in known:
        raise DataError(
            f"{path}: no split '{split}'{suggest(split, known)}; it has {', '.join(known)}"
        )
    return data[split] if isinstance(data, dict) else data


def _hub_rows(source: DataSource) -> PlacedRows:
    import datasets

    what = f"{source.name}{f' ({source.subset})' if source.subset else ''}[{source.split}]"
    try:
        data = datasets.load_dataset(source.name, source.subset, split=source.split)
    except Exception as error:  # offline, unknown, gated, wrong split: each its own exception
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{source.name}: no such file or folder here, and the hub gave no dataset {what}: "
            f"{first_line}"
        ) from error
    return _numbered(data, what)


def _numbered(rows: Iterable[Mapping[str, Any]], name: str) -> PlacedRows:
    return ((f"{name}: row {number}", _without_nulls(row)) for number, row in enumerate(rows, 1))


def _without_nulls(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row without the null fields of its messages and tools.

    A table has one schema for all rows, so that every message has the fields of every other.
    """
    return {name: x if name == "meta" else _bare(x) for name, x in row.items()}


def _bare(value: Any) -> Any:
    if isinstance(value, list):
        return [_bare(part) for part in value]
    if isinstance(value, dict):
        return {name: _bare(part) for name, part in value.items() if part is not None}
    return value


# --- identity ----------------------------------------------------------------------------------


def data_digest(source: DataSource) -> str:
    """What identifies the data, for content hashes.

    sha256 of a file's bytes, or of a folder's files with their names, in hex; for a hub name
    "hub:name@subset/split", because nothing is fetched here.
    """
    path = Path(source.name)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = (f"{file.relative_to(path).as_posix()} {_file_digest(file)}" for file in files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if path.exists():
        return _file_digest(path)
    if path.is_absolute() or path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: no such file")
    commit = cached_commit(source.name, "README.md", "dataset") or "latest"
    return f"hub:{source.name}@{commit}/{source.subset or ''}/{source.split}"


def cached_commit(name: str, file: str, kind: str, revision: str | None = None) -> str | None:
    """The commit of something from the hub as far as this machine knows it; asks no server."""
    found = cached_file(name, file, kind, revision)
    return found.parent.name if found else None


def cached_file(name: str, file: str, kind: str, revision: str | None = None) -> Path | None:
    """A file from the hub if this machine has it; asks no server."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, file, repo_type=kind, revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: {_damage(error)}") from error
