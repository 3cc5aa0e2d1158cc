"""Where recorded replies are in their files; the texts stay on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from alignzoo import Capabilities, JudgeError, Question, Reply, Usage

Place: TypeAlias = tuple[int, int]  # number of the file, offset of the line in bytes
Row: TypeAlias = dict[str, Any]

DIGEST_KEYS = ("digest", "key", "question")
REPLY_KEYS = ("text", "scores", "error", "top_logprobs")


@dataclass(frozen=True)
class Recording:
    """The index of some files."""

    places: Mapping[str, Place]  # digest, or "id " and the id
    said: Mapping[str, Any] | None  # who was recorded: name and settings
    capabilities: Capabilities

    def find(self, question: Question) -> Place | None:
        """Where the reply to a question is."""
        return self.places.get(question.digest, self.places.get(f"id {question.id}"))


@dataclass
class _Index:
    """What has been read so far."""

    places: dict[str, Place] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)  # rows without a digest: hash of the line
    judges: dict[str, None] = field(default_factory=dict)
    capabilities: Row | None = None
    top_logprobs: int = 0


def read_recording(files: Sequence[Path], judge: str | None) -> Recording:
    """The index of files of replies, of one judge where they hold several judges' replies.

    Raises JudgeError with the line when a row cannot be read, when rows without a digest answer
    one id differently, when there are several judges and none is chosen, and when nothing is left.
    """
    return _read(tuple((f.resolve(), f.stat().st_mtime_ns, f.stat().st_size) for f in files), judge)


@cache
def _read(files: tuple[tuple[Path, int, int], ...], judge: str | None) -> Recording:
    index = _Index()
    for number, (path, _, _) in enumerate(files):
        for line_number, offset, line in _lines(path):
            where = f"replay: {path}:{line_number}"
            _take(index, _row(where, line), (number, offset), hash(line), where, judge)
    names = ", ".join(index.judges)
    if judge is None and len(index.judges) > 1:
        raise JudgeError(f"replay: {files[0][0]}: several judges; choose one of {names}: `judge`")
    if not index.places:
        whose = f" by '{judge}' (there are: {names})" if judge and names else ""
        raise JudgeError(f"replay: {files[0][0]}: holds no replies{whose}")
    said = _who(files[0][0].parent, judge or names or None)
    return Recording(index.places, said, _capabilities(index, said, files[0][0]))


def _take(
    index: _Index, row: Row, place: Place, content: int, where: str, judge: str | None
) -> None:
    if "capabilities" in row:
        index.capabilities = row["capabilities"]
        return
    name = row.get("judge")
    if isinstance(name, str):
        index.judges[name] = None
        if judge not in (None, name):
            return
    key, reply = _key(row), reply_of(row)
    if key is None or reply is None:
        return
    if key.startswith("id ") and index.lines.setdefault(key, content) != content:
        raise JudgeError(f"{where}: a second reply to {key}; keep one, or give rows a `digest`")
    index.places[key] = place
    index.top_logprobs = max(index.top_logprobs, len(reply.top_logprobs or {}))


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(number, offset, line); an unfinished last line is what a killed writer leaves."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip() and (line.endswith(b"\n") or _whole(line)):
                yield number, offset, line
            offset += len(line)


def _whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _row(where: str, line: bytes) -> Row:
    try:
        row: Row = json.loads(line)
        reply_of(row)
        Capabilities(**row.get("capabilities", {"model": ""}))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError,
            RecursionError) as error:  # fmt: skip
        raise JudgeError(f"{where}: is no recorded reply: {error}") from error
    return row


def _key(row: Mapping[str, Any]) -> str | None:
    """What a row answers: a question by its digest, or an id."""
    found = next((row[name] for name in DIGEST_KEYS if isinstance(row.get(name), str)), None)
    if found is not None:
        return str(found)
    return f"id {row['id']}" if row.get("id") is not None else None


def reply_of(row: Mapping[str, Any]) -> Reply | None:
    """The reply a row holds; None when it holds none.

    Raises ValueError, TypeError, KeyError or AttributeError when it is malformed.
    """
    inner = row.get("reply")
    said = {**row, "text": inner} if isinstance(inner, str) else inner or row
    if not isinstance(inner, Mapping) and not any(said.get(key) is not None for key in REPLY_KEYS):
        return None
    logprobs, scores, usage = (said.get(x) for x in ("top_logprobs", "scores", "usage"))
    return Reply(
        text=_string(said.get("text") or ""),
        top_logprobs=None if logprobs is None else {k: float(v) for k, v in logprobs.items()},
        scores=None if scores is None else tuple(float(x) for x in scores),
        usage=usage and Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"])),
        finish=said.get("finish", said.get("finish_reason")),
        error=said.get("error"),
        model=_name(said.get("model")),
        fingerprint=_name(said.get("fingerprint")),
    )


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _string(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"the text is {type(text).__name__}")
    return text


# --- who was recorded --------------------------------------------------------------------------


def _who(folder: Path, name: str | None) -> Row | None:
    """The name and settings of the recorded judge, from what lies beside the replies."""
    described = _json(folder / "judge.json")
    if "identity" in described:
        return {"name": described.get("judge"), "settings": described["identity"]}
    section = _json(folder / "scores.json").get("section")
    judges = section.get("judges", []) if isinstance(section, dict) else []
    found = next((j for j in judges if isinstance(j, dict) and j.get("name") == name), {})
    return {"name": name, "settings": found.get("settings")} if name else None


def _json(path: Path) -> Row:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _capabilities(index: _Index, said: Row | None, file: Path) -> Capabilities:
    """As recorded; else the model by its settings or its name, and what the rows show."""
    if index.capabilities is not None:
        return Capabilities(**index.capabilities)
    settings = (said or {}).get("settings") or {}
    model = settings.get("model") or (said or {}).get("name") or file.name
    return Capabilities(str(model), settings.get("revision"), top_logprobs=index.top_logprobs)
