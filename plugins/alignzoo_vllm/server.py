"""One vLLM server: started and kept, or reached; and what went wrong with it, in a sentence."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from alignzoo import KeptServer, TrainingError
from alignzoo_vllm.installed import PYTHON, environment

SOCKET = "socket"
README = "start it as the README of alignzoo_vllm says"
NONSENSE = "answers what no vLLM server of version 0.32 says:"


class _Socket(http.client.HTTPConnection):
    """HTTP over a socket in a folder, which needs no port and is seen by nobody else."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


@dataclass
class Server:
    """Where a server is, and how to ask it."""

    place: str  # an address, or the path of a socket
    deadline: float
    kept: KeptServer | None = None  # of one that was started here

    def ask(self, path: str, body: Any = None, deadline: float | None = None) -> Any:
        """The answer to a request; one with a body is a POST.

        Raises TrainingError when the server is lost, refuses, is late, or answers no JSON.
        """
        seconds, since = deadline or self.deadline, self.kept.printed if self.kept else None
        try:
            status, text = self._exchange(path, body, seconds)
        except (OSError, http.client.HTTPException) as error:
            late = f"gave no answer in {seconds:g} s" if isinstance(error, TimeoutError) else ""
            raise self.fault(late or f"is lost ({error!r:.80})", since) from error
        if status != http.client.OK:
            cure = README if status == http.client.NOT_FOUND else ""
            raise self.fault(f"answered {path} with status {status}: {text!r:.200}", since, cure)
        try:
            return json.loads(text or "null")
        except ValueError as error:
            raise self.fault(f"{NONSENSE} {text!r:.80}", None, README) from error

    def fault(self, what: str, since: int | None = None, cure: str = "") -> TrainingError:
        """An error with what its log says from an offset on."""
        who = "the vLLM server" if self.kept else f"the vLLM server at {self.place}"
        log = "" if since is None or not self.kept else f", its log: {self.kept.said(since)}"
        return TrainingError(f"{who} {what}{log}; {cure or 'run the recipe again to go on'}")

    def read(self, path: str, body: Any, reader: Callable[[Any], Any]) -> Any:
        """What a reader finds in the answer; it raises TrainingError when it finds nothing."""
        answer = self.ask(path, body)
        try:
            return reader(answer)
        except (LookupError, TypeError, ValueError) as error:
            raise self.fault(f"{NONSENSE} {answer!r:.80}", None, README) from error

    def model(self) -> tuple[str, int]:
        """What a running server calls its one model, and the longest text of it."""
        model = self.read("/v1/models", None, lambda answer: answer["data"][0])
        return str(model["id"]), int(model["max_model_len"])

    def wait(self, seconds: float) -> None:
        """Until it answers; raises TrainingError with its own words when it ends, or is late."""
        until = time.monotonic() + seconds
        while self.kept and not self.kept.ended and time.monotonic() < until:
            with suppress(TrainingError):
                return self.ask("/health", deadline=5)  # type: ignore[no-any-return]
        late = time.monotonic() >= until
        what = f"was not ready in {seconds:g} s" if late else "ended before it was ready"
        raise self.fault(what, 0, PYTHON)

    def close(self) -> None:
        """End a server that was started here."""
        if self.kept:
            self.kept.close()

    def _exchange(self, path: str, body: Any, seconds: float) -> tuple[int, bytes]:
        kind = _Socket if self.kept else http.client.HTTPConnection
        place = self.place if self.kept else urlsplit(self.place).netloc
        with closing(kind(place, timeout=seconds)) as line:
            text, how = (None, "GET") if body is None else (json.dumps(body), "POST")
            line.request(how, path, text, {"Content-Type": "application/json", "Host": "localhost"})
            answer = line.getresponse()
            return answer.status, answer.read()


def start(command: list[str], folder: Path, deadline: float, device: torch.device) -> Server:
    """A server that listens in a folder, soon ready to answer."""
    env = environment(command[0])
    if device.type == "cuda":  # the one that the trainer is on
        visible = env.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(64)))
        env["CUDA_VISIBLE_DEVICES"] = visible.split(",")[device.index or 0]
    env |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "TMPDIR": str(folder)}
    return Server(str(folder / SOCKET), deadline, KeptServer.start(command, folder, env))
