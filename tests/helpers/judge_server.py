"""An OpenAI-compatible judge for tests and benchmarks: instant, and as unreliable as asked for.

    python tests/helpers/judge_server.py --share 0.3 --seed 1

prints its port and serves until it is stopped. Which call fails how follows from the seed, the
question and how often it was asked, so that a test meets the same faults every time. No question
meets more than `Faults.in_a_row` faults in a row. GET /stats tells what was delivered.
"""

import argparse
import asyncio
import hashlib
import json
import random
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

LOST = ("429", "500", "truncated", "short", "stall", "drop")  # no reply arrives
KINDS = (*LOST, "garbage")  # garbage arrives, and says nothing
GARBAGE = "I would rather talk about the weather."
MODEL = "tiny-judge"


@dataclass(frozen=True)
class Said:
    """What the judge says to one question."""

    text: str
    top_logprobs: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Faults:
    """How often and how calls fail."""

    share: float = 0.0
    seed: int = 0
    kinds: Sequence[str] = KINDS
    in_a_row: int = 3
    stall: float = 3.0  # seconds

    def of(self, key: str, call: int, before: int) -> str | None:
        """The fault of the call-th call about a question that has just met `before` faults."""
        chance = random.Random(f"{self.seed}/{key}/{call}")
        if before >= self.in_a_row or chance.random() >= self.share:
            return None
        return chance.choice(self.kinds)


def key_of(messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation by its digest, as /stats names it."""
    text = json.dumps([[m["role"], m["content"]] for m in messages])
    return hashlib.sha256(text.encode()).hexdigest()


def graded(messages: Sequence[Mapping[str, str]]) -> Said:
    """A grade from 1 to 10 that the conversation decides."""
    return Said(f"Well said. Rating: [[{int(key_of(messages)[:8], 16) % 10 + 1}]]")


def worth(answer: str) -> int:
    """What `choosing` makes of an answer, 1 to 10: its letters, whatever the prompt."""
    return int(hashlib.sha256(answer.strip().encode()).hexdigest()[:8], 16) % 10 + 1


def choosing(messages: Sequence[Mapping[str, str]]) -> Said:
    """What the templates of alignzoo_pairwise ask for: a verdict on two answers, or a grade."""
    text = messages[-1]["content"]
    shown = [m[1] for m in re.finditer(r"<\w*answer>(.*?)</\w*answer>", text, re.DOTALL)]
    if not shown:
        return Said("yes")
    if len(shown) == 1:
        return Said(f"It is so. \nGrade: [[{worth(shown[0])}]]")
    first, second = map(worth, shown)
    word = "TIE" if first == second else "FIRST" if first > second else "SECOND"
    return Said(f"It is so. \nVerdict: {word}")


def recorded(path: Path) -> Callable[[Sequence[Mapping[str, str]]], Said]:
    """Replies out of a file of lines {"messages": [...], "text": "...", "top_logprobs": {...}}."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    known = {key_of(r["messages"]): Said(r["text"], r.get("top_logprobs")) for r in rows}
    other = Said("yes", {"yes": -0.1, "no": -3.0, "well": -4.0, "sure": -5.0, "perhaps": -6.0})
    return lambda messages: known.get(key_of(messages), other)


@dataclass
class Server:
    """One server and its counts, by question."""

    says: Callable[[Sequence[Mapping[str, str]]], Said] = graded
    faults: Faults = Faults()
    key: str | None = None  # demanded when given
    delay: float = 0.0  # seconds a reply takes
    calls: Counter = field(default_factory=Counter)
    delivered: Counter = field(default_factory=Counter)  # whole and readable replies
    garbage: Counter = field(default_factory=Counter)
    met: Counter = field(default_factory=Counter)  # faults by kind
    row: Counter = field(default_factory=Counter)  # faults in a row
    now: int = 0
    most: int = 0  # requests under way at once

    async def serve(self, port: int = 0) -> asyncio.Server:
        """Listen; the port is in the result's sockets."""
        return await asyncio.start_server(self._connection, "127.0.0.1", port, backlog=1024)

    async def _connection(self, reader, writer):
        try:
            while request := await _request(reader):
                if not await self._answer(writer, *request):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer, method, path, headers, body):
        """Whether the connection is to be kept."""
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            error = {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
            return await _send(writer, 401, json.dumps(error))
        if path.endswith("/stats"):
            return await _send(writer, 200, json.dumps(self.stats()))
        if path.endswith("/models"):
            listed = {"object": "list", "data": [{"id": MODEL, "max_model_len": 8192}]}
            return await _send(writer, 200, json.dumps(listed))
        if method != "POST" or not path.endswith("/chat/completions"):
            return await _send(writer, 404, '{"error": {"message": "Not Found"}}')
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._complete(writer, json.loads(body))
        finally:
            self.now -= 1

    async def _complete(self, writer, asked):
        key = key_of(asked["messages"])
        self.calls[key] += 1
        fault = self.faults.of(key, self.calls[key], self.row[key])
        self.row[key] = self.row[key] + 1 if fault else 0
        if self.delay:
            await asyncio.sleep(self.delay)
        said = Said(GARBAGE) if fault == "garbage" else self.says(asked["messages"])
        if fault:
            self.met[fault] += 1
        if fault in LOST:
            return await self._fail(writer, fault, completion(said, asked))
        kept = await _send(writer, 200, completion(said, asked))
        (self.garbage if fault else self.delivered)[key] += 1
        return kept

    async def _fail(self, writer, fault, whole):
        if fault == "429":
            return await _send(writer, 429, '{"error": {"message": "slow down"}}', after=0.05)
        if fault == "500":
            return await _send(writer, 500, "<html>oh no</html>")
        if fault == "truncated":
            return await _send(writer, 200, whole[: len(whole) // 2])
        if fault == "short":
            await _send(writer, 200, whole[: len(whole) // 2], length=len(whole))
        if fault == "stall":
            self.now -= 1  # nobody waits that long
            await asyncio.sleep(self.faults.stall)
            self.now += 1
        return False

    def stats(self):
        """Everything counted so far."""
        counts = ("calls", "delivered", "garbage", "met")
        return {name: getattr(self, name) for name in counts} | {"most_at_once": self.most}


def completion(said, asked):
    """The body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": said.text}}
    choice |= {"finish_reason": "stop"}
    if asked.get("logprobs"):
        listed = said.top_logprobs or {said.text.split(maxsplit=1)[0]: -0.1}
        wanted = list(listed.items())[: asked.get("top_logprobs", 0)]
        top = [{"token": token, "logprob": value} for token, value in wanted]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}] if top else []}
    words = sum(len(m["content"].split()) for m in asked["messages"])
    usage = {"prompt_tokens": words, "completion_tokens": len(said.text.split())}
    return json.dumps(
        {
            "object": "chat.completion",
            "model": asked.get("model", MODEL),
            "choices": [choice],
            "usage": usage,
        }
    )


async def _request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split(" ")
    return method, path, headers, body


async def _send(writer, status, text, after=None, length=None):
    body = text.encode()
    wait = "" if after is None else f"retry-after: {after}\r\n"
    writer.write(
        f"HTTP/1.1 {status} Any\r\ncontent-type: application/json\r\n{wait}"
        f"content-length: {length or len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    return True


@contextmanager
def serving(*options: object) -> Iterator[str]:
    """A server in a process of its own; gives the address that judges take as `url`."""
    command = [sys.executable, __file__, *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def stats_of(url: str) -> dict:
    """What a server has counted."""
    local = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with local.open(url + "/stats") as response:
        return json.load(response)


async def main(options: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    faults = Faults(options.share, options.seed, options.kinds, options.in_a_row, options.stall)
    usual = choosing if options.chooses else graded
    says = recorded(options.replies) if options.replies else usual
    server = await Server(says, faults, options.key, options.delay).serve(options.port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--in-a-row", type=int, default=3)
    parser.add_argument("--stall", type=float, default=3.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--key")
    parser.add_argument("--chooses", action="store_true")
    parser.add_argument("--replies", type=Path)
    asyncio.run(main(parser.parse_args()))
