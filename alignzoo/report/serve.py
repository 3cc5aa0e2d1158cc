"""The report of a run that is under way, served to this machine alone and made anew on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from alignzoo.contract.errors import AlignzooError
from alignzoo.recipe.registry import Registry
from alignzoo.report.fold import as_json, fold_report
from alignzoo.report.page import render_report

HOST = "127.0.0.1"
LOOKED_AT = (
    "run.json",
    "recipe.yaml",
    "scores.jsonl",
    "stages/*/*.jsonl",
    "evaluations/*/*/*.json*",
)
NAMES = ("127.0.0.1", "localhost")  # by which a browser of this machine asks


@dataclass
class Live:
    """A report that is folded again when a file it reads has changed."""

    folders: Sequence[Path]
    registry: Registry
    lock: Lock = field(default_factory=Lock)
    made: tuple[str, bytes, bytes] = ("", b"", b"")  # version, page, numbers

    def version(self) -> str:
        """Other whenever a file was written to."""
        found = (f for folder in self.folders for name in LOOKED_AT for f in folder.glob(name))
        digest = hashlib.blake2b(digest_size=8)
        for file in sorted(found):
            try:
                status = file.stat()
            except FileNotFoundError:  # replaced just now
                continue
            digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def page(self) -> bytes:
        """The page of this moment."""
        return self._current()[1]

    def numbers(self) -> bytes:
        """Its JSON twin."""
        return self._current()[2]

    def _current(self) -> tuple[str, bytes, bytes]:
        with self.lock:
            version = self.version()
            if version != self.made[0]:
                report = fold_report(self.folders, self.registry)
                page = render_report(report, live=version, twin="report.json")
                numbers = json.dumps(as_json(report), ensure_ascii=False, allow_nan=False)
                self.made = (version, page.encode(), numbers.encode(errors="backslashreplace"))
            return self.made


def server_of(live: Live, port: int) -> ThreadingHTTPServer:
    """A server on this machine's own address; port 0 takes a free one.

    Raises AlignzooError when the port is taken.
    """
    try:
        server = ThreadingHTTPServer((HOST, port), partial(_Handler, live))
    except OSError as error:
        raise AlignzooError(f"port {port}: {error.strerror}; choose another --port") from error
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    """Answers GET for the page, its numbers and its version."""

    def __init__(self, live: Live, *given: object) -> None:
        self.live = live
        super().__init__(*given)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """The three things there are; a name of another site is none of ours (DNS rebinding)."""
        parts: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/": ("text/html", self.live.page),
            "/report.json": ("application/json", self.live.numbers),
            "/version": ("text/plain", lambda: self.live.version().encode()),
        }
        asked = self.headers.get("Host", "").rpartition(":")[0]
        if asked not in NAMES or self.path not in parts:
            self.send_error(404)
            return
        kind, make = parts[self.path]
        body = make()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: object) -> None:
        """Nothing: the terminal belongs to whoever runs it."""
