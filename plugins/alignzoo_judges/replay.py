"""A judge that repeats what was said before: recorded replies from files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from alignzoo import AskedJudge, Capabilities, JudgeError, Question, Reply, file_digest, option
from alignzoo_judges.recording import Place, Recording, read_recording, reply_of

RESULT = "judgments.jsonl"  # what an evaluation leaves
JOURNAL = "judge.json"  # beside the segments of a journal in the cache
SHOWN = 5  # ids in a sentence


@dataclass(frozen=True)
class Replay(AskedJudge):
    """Recorded replies; nothing is asked of anybody.

    Read are the `judgments.jsonl` of a finished evaluation or of all evaluations of a run, the
    folder of a judge in alignzoo's cache, and files of your own with a JSON object per line:
    `digest` (of the question) or `id`, and `text`, `top_logprobs` {token: nats}, `scores`, `usage`
    {prompt_tokens, completion_tokens}, `finish`, `error`, `model` (who replied), `fingerprint`, as
    far as there are such.

    A row with a digest answers that very question: one whose text has changed since is missing. Of
    several rows with one digest the last counts, as in a file that is only appended to.
    """

    name = "replay"
    other_models = "fail"  # what others said is on record and cannot be asked anew
    batch_size = 64  # so that a sentence can name several missing questions
    path: str = option(doc="a file of replies, or a folder of recorded judgments")
    judge: str | None = option(None, "whose replies, where the files hold those of several judges")
    partial: bool = option(
        False, "count a question without a recorded reply as failed instead of stopping"
    )

    def identity(self) -> Mapping[str, Any]:
        """Who was recorded, as far as the files say, and a digest of the files.

        Raises JudgeError when there are none or a row cannot be read.
        """
        files = self._files()
        digest = hashlib.sha256("".join(map(file_digest, files)).encode()).hexdigest()
        return {"judge": read_recording(files, self.judge).said, "digest": digest}

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[ReplaySession]:
        """Open the files. Raises JudgeError when there are none or a row cannot be read."""
        files = self._files()
        recording = read_recording(files, self.judge)
        async with AsyncExitStack() as stack:
            opened = [stack.enter_context(file.open("rb")) for file in files]
            yield ReplaySession(self, recording, opened, recording.capabilities)

    def _files(self) -> tuple[Path, ...]:
        path = Path(self.path)
        if path.is_file():
            return (path,)
        pattern = "*.jsonl" if (path / JOURNAL).is_file() else f"**/{RESULT}"
        files = tuple(sorted(path.glob(pattern))) if path.is_dir() else ()
        if not files:
            what = f"no {RESULT} in it" if path.is_dir() else "no such file or folder"
            raise JudgeError(f"replay: {path}: {what}; `path` names recorded replies")
        return files


@dataclass
class ReplaySession:
    """Open files."""

    judge: Replay
    recording: Recording
    files: Sequence[BinaryIO]
    capabilities: Capabilities

    async def replies(self, questions: Sequence[Question]) -> list[Reply]:
        """The recorded reply to every question.

        Raises JudgeError naming the first questions that were not recorded.
        """
        places = [self.recording.find(question) for question in questions]
        missing = [q.id for q, place in zip(questions, places, strict=True) if place is None]
        if missing and not self.judge.partial:
            rest = ", ..." if len(missing) > SHOWN else ""
            raise JudgeError(
                f"replay: {self.judge.path} has no reply to {', '.join(missing[:SHOWN])}{rest}; "
                "record them, or count them as failed with `partial: true`"
            )
        return [self._reply(place) for place in places]

    def _reply(self, place: Place | None) -> Reply:
        if place is None:
            return Reply(error="not recorded")
        number, offset = place
        self.files[number].seek(offset)
        reply = reply_of(json.loads(self.files[number].readline()))
        return Reply(error="not recorded") if reply is None else reply
