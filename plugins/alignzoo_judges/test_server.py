"""A real HTTP server that can be told to misbehave, and one question for it."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from threading import Thread

from alignzoo import Answer, Decoding, PromptSample, Question, Response
from alignzoo_judges.endpoint import Endpoint

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def quiet(monkeypatch):
    """No proxy and no key of the person who runs the tests."""
    for name in (*PROXIES, "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def completion(text="yes", *, top=(), **more):
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    if top:
        alternatives = [{"token": t, "logprob": x} for t, x in top]
        choice["logprobs"] = {"content": [{"token": top[0][0], "top_logprobs": alternatives}]}
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    return {"model": "judge", "choices": [choice | more.pop("choice", {})], "usage": usage} | more


def refusal(message, **more):
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


class Server:
    """Answers with what `say(path, body, headers)` returns: (status, content) or (.., headers).

    "stall" and "drop" instead of a response do that.
    """

    def __init__(self, say):
        self.say, self.seen, self.url = say, [], ""

    async def serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                pairs = (line.split(": ", 1) for line in lines[1:] if line)
                headers = {name.lower(): value for name, value in pairs}
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                path = lines[0].split()[1].removeprefix("/v1")
                body = json.loads(content) if content else None
                self.seen.append((path, body, headers))
                said = self.say(path, body, headers)
                if said == "stall":
                    await asyncio.sleep(30)
                if said == "drop":
                    break
                self._write(writer, *said)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    @staticmethod
    def _write(writer, status, content, headers=()):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        lines = [f"HTTP/1.1 {status} Status", f"content-length: {len(raw)}", *headers]
        writer.write("\r\n".join([*lines, "", ""]).encode() + raw)


@asynccontextmanager
async def serving(say):
    server = Server(say)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=2**24)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()


@contextmanager
def in_thread(say):
    """The address of a server in a thread of its own, for judges that are asked from outside."""
    address: Future[str] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run():
        async with serving(say) as server:
            address.set_result(server.url)
            await stop.wait()

    thread = Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        yield address.result(10)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def question(text="Is it good?", **decoding):
    answer = Answer(PromptSample("p"), Response("a"), 1)
    messages = ({"role": "system", "content": "Judge."}, {"role": "user", "content": text})
    return Question("0", 0, (answer,), messages, Decoding(**decoding))


def sane(path, body, headers):
    """A server as it should be: a list of one model, and log-probs on request."""
    if path == "/models":
        return 200, {"data": [{"id": "judge", "max_model_len": 4096}]}
    top = (("m", -0.1), ("M", -2.5), (" m", -9.0)) if body.get("logprobs") else ()
    return 200, completion("m", top=top)


def after_probe(say):
    """The sane server until the probe is over, then `say`."""

    def both(path, body, headers):
        greeting = path == "/models" or "Answer with yes." in str(body["messages"])
        return (sane if greeting else say)(path, body, headers)

    return both


def ask(say, *questions, **options):
    """(replies, session, server) of one connection."""

    async def run():
        async with serving(say) as server:
            judge = Endpoint(**{"model": "judge", "url": server.url, "timeout": 5.0} | options)
            async with judge.connect() as session:
                return await session.replies(questions or [question()]), session, server

    return asyncio.run(run())


def answered(status, content, headers=(), **options):
    """What becomes of a question answered like this."""
    (reply,), _, _ = ask(after_probe(lambda *_: (status, content, headers)), **options)
    return reply
