"""Group commit: many writers, one disk write for all that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

Entry = TypeVar("Entry")

COLLECT = 0.01  # seconds an entry waits for company; with the write it stays below 50 ms


@asynccontextmanager
async def group_commit(
    write: Callable[[Sequence[Entry]], None], collect: float = COLLECT
) -> AsyncIterator[Callable[[Entry], Awaitable[None]]]:
    """Gives `put`, which returns once its entry has been written.

    `write` runs in a thread, never twice at once, with everything that came meanwhile. What was put
    is written even when whoever put it is cancelled, and before the context is left. An exception
    of `write` is raised by every `put` that it concerns.
    """
    waiting: asyncio.Queue[tuple[Entry, asyncio.Future[None]] | None] = asyncio.Queue()

    async def put(entry: Entry) -> None:
        written = asyncio.get_running_loop().create_future()
        waiting.put_nowait((entry, written))
        await written

    async def serve() -> None:
        while (first := await waiting.get()) is not None:
            await asyncio.sleep(collect)
            batch = [first]
            while not waiting.empty():
                if (entry := waiting.get_nowait()) is None:
                    waiting.put_nowait(None)
                    break
                batch.append(entry)
            await _write(write, batch)

    server = asyncio.create_task(serve())
    try:
        yield put
    finally:
        waiting.put_nowait(None)
        await asyncio.shield(server)


async def _write(
    write: Callable[[Sequence[Entry]], None],
    batch: Sequence[tuple[Entry, asyncio.Future[None]]],
) -> None:
    failure: Exception | None = None
    try:
        await asyncio.to_thread(write, [entry for entry, _ in batch])
    except Exception as error:
        failure = error
    for _, written in batch:
        if written.done():  # whoever waited was cancelled
            continue
        if failure is None:
            written.set_result(None)
        else:
            written.set_exception(failure)
