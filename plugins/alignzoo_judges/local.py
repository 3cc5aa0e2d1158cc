"""A judge that runs on this machine, through transformers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from alignzoo import AskedJudge, Capabilities, JudgeError, Question, Reply, option
from alignzoo_judges.chat import without_system

if TYPE_CHECKING:
    from alignzoo_judges.reading import Reader

SMALL = 64 * 2**20  # bytes of a file that is digested whole
PIECE = 2**16
PIECES = 64  # of a larger file


@dataclass(frozen=True)
class LocalModel(AskedJudge):
    """A causal language model from a folder or the hub, run here with its own chat template.

    Greedy at temperature 0; else sampled with noise that depends on the question alone. Questions
    are answered one by one, because in a batch the last bits of a row depend on its neighbours:
    the same question has the same reply whatever else is asked, before, beside or after it.
    """

    name = "local"
    model: str = option(doc="folder or hub name of a model in the transformers layout")
    revision: str | None = option(None, "branch, tag or commit on the hub")
    dtype: Literal["float32", "bfloat16", "float16"] = option("float32", "number format")
    plain: bool = option(False, "show the messages as bare text, to models without a chat template")
    system_as_user: bool = option(
        False, "put system messages before the user's, for models that know no system role"
    )

    def identity(self) -> Mapping[str, Any]:
        """The options, and for a folder a digest of what is in it.

        Of files above 64 MiB the digest covers the size and 64 pieces spread over the file.
        """
        folder = Path(self.model)
        return {
            "model": self._called,
            "content": folder_digest(folder) if folder.is_dir() else None,
            "revision": self.revision,
            "dtype": self.dtype,
            "plain": self.plain,
            "system_as_user": self.system_as_user,
        }

    @property
    def _called(self) -> str:
        """The model on any machine: a folder by its name, wherever it lies."""
        folder = Path(self.model)
        return folder.name if folder.is_dir() else self.model

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[LocalSession]:
        """Load the model.

        Raises JudgeError when it cannot be loaded or has no chat template and `plain` is not set.
        """
        from alignzoo_judges.reading import load

        reader = await asyncio.to_thread(load, self.model, self.revision, self.dtype)
        if not (self.plain or reader.tokenizer.chat_template):
            raise JudgeError(
                f"local: {self.model} has no chat template; take a chat model, or show it bare "
                "text with `plain: true`"
            )
        capabilities = Capabilities(
            model=self._called,
            revision=reader.commit or self.revision,
            top_logprobs=reader.vocabulary,
            context_length=reader.context,
        )
        yield LocalSession(self, reader, capabilities)


@dataclass
class LocalSession:
    """A loaded model."""

    judge: LocalModel
    reader: Reader
    capabilities: Capabilities

    async def replies(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply per question, in a thread of its own, so that others can go on writing."""
        return [await asyncio.to_thread(self._reply, question) for question in questions]

    def _reply(self, question: Question) -> Reply:
        ids = self._ids(question)
        need, context = len(ids) + question.decoding.max_tokens, self.reader.context
        if context is not None and need > context:
            return Reply(
                error=f"context: {len(ids)} tokens and max_tokens "
                f"{question.decoding.max_tokens} make {need}, the model holds {context}"
            )
        return self.reader.reply(ids, question.decoding, key=question.digest)

    def _ids(self, question: Question) -> list[int]:
        messages: Sequence[Mapping[str, str]] = question.messages
        if self.judge.system_as_user:
            messages = without_system(messages)
        if self.judge.plain:
            return self.reader.plain_ids(messages)
        return self.reader.chat_ids(messages)


def folder_digest(folder: Path) -> str:
    """Sha256 (hex) over names and contents of a folder's files, large ones by samples."""
    found = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        size = path.stat().st_size
        found.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for piece in _pieces(file, size):
                found.update(piece)
    return found.hexdigest()


def _pieces(file: BinaryIO, size: int) -> list[bytes]:
    if size <= SMALL:
        return [file.read()]
    found = []
    for n in range(PIECES):
        file.seek(n * (size - PIECE) // (PIECES - 1))
        found.append(file.read(PIECE))
    return found
