"""Every raw reply of a judge, on disk before anybody reads it.

A judge has a folder in the cache, named by its identity. Each process appends to a segment of its
own there, one JSON object per line, and reads the segments of all. Nothing is ever changed: of
several replies to one question the last counts.

    {"key": "<sha256 of the question>", "time": 1719990000.0, "reply": {"text": "...", ...}}
    {"key": "<sha256 of the question>", "time": 1719990000.0, "lost": {"prompt_tokens": 7, ...}}
    {"capabilities": {"model": "...", ...}, "time": 1719990000.0}
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias

from alignzoo.contract.errors import AlignzooError, DataError
from alignzoo.contract.verdicts import AskedJudge, Capabilities, Reply, Usage
from alignzoo.store.files import cache_folder, digest_of_value, write_json

CHECKSUM = b',"crc":"'  # of the line without it
OFFSET_BITS = 40  # a place is segment number << 40 | offset in bytes


@dataclass(frozen=True)
class Answered:
    """A reply, and the digest of the question it answers."""

    key: str
    reply: Reply


@dataclass(frozen=True)
class Lost:
    """What was paid for a question although no reply came."""

    key: str
    usage: Usage


Entry: TypeAlias = Answered | Lost | Capabilities


def journal_folder(judge: AskedJudge) -> Path:
    """Where the replies of a judge are: one folder per identity, readable in its `judge.json`."""
    digest = digest_of_value([judge.name, judge.identity()])
    slug = re.sub(r"[^A-Za-z0-9]+", "-", judge.name).strip("-").lower()
    return cache_folder() / "judgments" / f"{slug}-{digest[:16]}"


def open_journal(judge: AskedJudge) -> Journal:
    """The judge's journal, ready to be read and appended to.

    Raises AlignzooError when the cache cannot be written.
    """
    folder = journal_folder(judge)
    try:
        if not (folder / "judge.json").is_file():
            described = {"judge": judge.name, "identity": judge.identity()}
            write_json(folder / "judge.json", described)
        return Journal(folder)
    except OSError as error:
        raise AlignzooError(
            f"{folder}: the judge's replies cannot be kept there ({error.strerror}); "
            "set ALIGNZOO_CACHE to a folder that can be written"
        ) from error


class Journal:
    """The replies in a folder. Memory holds a key and a place for each, never the reply.

    A last line without its end was cut by a kill and is no entry; other lines that are no entry are
    counted in `damaged`. Entries that other processes append after the opening are not seen.
    `left` holds the questions that nobody answered since the opening, and why; it is not written,
    so that they are asked once more another time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged = 0
        self.capabilities: Capabilities | None = None  # as last recorded
        self.left: dict[str, str] = {}  # digest -> why
        self._places: dict[bytes, int] = {}
        self._earlier: dict[bytes, list[int]] = {}  # of those that were asked more than once
        self._lost: dict[bytes, list[Usage]] = {}
        self._segments = sorted(folder.glob("*.jsonl"))
        self._reader: tuple[int, BinaryIO] | None = None
        self._writer: RawIOBase | None = None
        for number, segment in enumerate(self._segments):
            with segment.open("rb") as file:
                self._index(number, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return _short(key) in self._places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def end(self) -> int:
        """The place of the next entry; every later place is larger."""
        own = len(self._segments) - (self._writer is not None)
        offset = self._writer.tell() if self._writer else 0
        return own << OFFSET_BITS | offset

    def since(self, place: int, key: str) -> bool:
        """Whether the reply to a question was appended at this place or later."""
        return self._places.get(_short(key), -1) >= place

    def get(self, key: str) -> Reply | None:
        """The last reply to the question with this digest, read back from disk.

        Raises DataError when the file is no longer what it was.
        """
        place = self._places.get(_short(key))
        return None if place is None else self._at(place, key)

    def every(self, key: str) -> list[Reply]:
        """All that was paid for the question with this digest, also what never became a reply.

        Raises DataError when a file is no longer what it was.
        """
        short = _short(key)
        lost = [Reply(usage=usage, error="no reply") for usage in self._lost.get(short, ())]
        if short not in self._places:
            return lost
        places = (*self._earlier.get(short, ()), self._places[short])
        return [*lost, *(self._at(place, key) for place in places)]

    def _at(self, place: int, key: str) -> Reply:
        number, offset = place >> OFFSET_BITS, place & (1 << OFFSET_BITS) - 1
        try:
            file = self._opened(number)
            file.seek(offset)
            entry = _entry(file.readline())
        except OSError:
            entry = None
        if not isinstance(entry, Answered) or entry.key != key:
            raise DataError(
                f"{self._segments[number]}: changed while it was read; run the same command again"
            )
        return entry.reply

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries and wait until they are on disk.

        Raises AlignzooError when they cannot be written; nothing more is taken then.
        """
        lines = [_line(entry) for entry in entries]
        try:
            writer = self._writer or self._open_segment()
            start = writer.tell()
            _write(writer, b"".join(lines))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is closed"
            self.close()  # the segment may end in half a line, which must stay its last
            raise AlignzooError(
                f"{self.folder}: the judge's replies cannot be kept ({why}); what came before is "
                "kept, and the same command goes on from there"
            ) from error
        number = len(self._segments) - 1
        for entry, line in zip(entries, lines, strict=True):
            self._take(entry, number << OFFSET_BITS | start)
            start += len(line)

    def close(self) -> None:
        """Close the files; what was appended is on disk already."""
        if self._reader is not None:
            self._reader[1].close()
        self._reader = None
        if self._writer is not None:
            self._writer.close()

    def _index(self, number: int, file: BinaryIO) -> None:
        offset = 0
        for line in file:
            entry = _entry(line)
            if entry is not None:
                self._take(entry, number << OFFSET_BITS | offset)
            elif line.endswith(b"\n"):
                self.damaged += 1
            offset += len(line)

    def _take(self, entry: Entry, place: int) -> None:
        if isinstance(entry, Capabilities):
            self.capabilities = entry
        elif isinstance(entry, Lost):
            self._lost.setdefault(_short(entry.key), []).append(entry.usage)
        else:
            short = _short(entry.key)
            if short in self._places:
                self._earlier.setdefault(short, []).append(self._places[short])
            self._places[short] = place

    def _opened(self, number: int) -> BinaryIO:
        """One segment is open at a time: questions come in the order they were asked in."""
        if self._reader is None or self._reader[0] != number:
            if self._reader is not None:
                self._reader[1].close()
            self._reader = None
            self._reader = number, self._segments[number].open("rb")
        return self._reader[1]

    def _open_segment(self) -> RawIOBase:
        """A new segment, locked for as long as this process lives."""
        path = self.folder / f"{time.time_ns():020d}-{os.getpid()}.jsonl"
        writer = path.open("xb", buffering=0)
        fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sync_folder(self.folder)
        self._segments.append(path)
        self._writer = writer
        return writer


def _short(key: str) -> bytes:
    """Half of a sha256 tells questions apart; `get` compares the whole."""
    return bytes.fromhex(key[:32])


def _write(file: RawIOBase, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- lines -------------------------------------------------------------------------------------


def _line(entry: Entry) -> bytes:
    """A line of ASCII: a reply cut inside a character is escaped like any other."""
    if isinstance(entry, Capabilities):
        row: dict[str, Any] = {"capabilities": asdict(entry), "time": time.time()}
    elif isinstance(entry, Lost):
        row = {"key": entry.key, "time": time.time(), "lost": asdict(entry.usage)}
    else:
        row = {"key": entry.key, "time": time.time(), "reply": dict(_kept(entry.reply))}
    text = json.dumps(row, separators=(",", ":")).encode()
    return text[:-1] + CHECKSUM + f'{zlib.crc32(text):08x}"}}\n'.encode()


def _is_whole(line: bytes) -> bool:
    """Whether a line says what was written; lines from before there were checksums have none."""
    text, found, stated = line.rpartition(CHECKSUM)
    return not found or stated == f'{zlib.crc32(text + b"}"):08x}"}}\n'.encode()


def _kept(reply: Reply) -> Iterator[tuple[str, Any]]:
    for name, value in _values(reply).items():
        if value is not None and value != "":
            yield name, asdict(value) if isinstance(value, Usage) else value


def _values(reply: Reply) -> dict[str, Any]:
    values = {field.name: getattr(reply, field.name) for field in fields(reply)}
    return values | {"top_logprobs": reply.top_logprobs and dict(reply.top_logprobs)}


def _entry(line: bytes) -> Entry | None:
    """The entry in a line; None when it is cut or damaged."""
    if not line.endswith(b"\n") or not _is_whole(line):
        return None
    try:
        row = json.loads(line)
        if "capabilities" in row:
            return Capabilities(**row["capabilities"])
        _short(row["key"])
        if "lost" in row:
            return Lost(row["key"], Usage(**row["lost"]))
        return Answered(row["key"], _reply(row["reply"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _reply(row: Mapping[str, Any]) -> Reply:
    values = dict(row)
    if "scores" in values:
        values["scores"] = tuple(values["scores"])
    if "usage" in values:
        values["usage"] = Usage(**values["usage"])
    return Reply(**values)
