"""Many command lines in one real process: importing torch once instead of once per case."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Call:
    """A command line; `plugins` is a folder that is on the path during the call only."""

    words: tuple[str, ...]
    plugins: str = ""
    cache: str = ""


@dataclass(frozen=True)
class Outcome:
    """How it ended."""

    status: int
    out: str
    err: str


def run_calls(calls):
    """The outcomes, from a process of their own."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([asdict(call) for call in calls]),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [Outcome(**outcome) for outcome in json.loads(done.stdout)]


def perform(call):
    from alignzoo.cli import main

    usual = os.environ.get("ALIGNZOO_CACHE", "")
    os.environ["ALIGNZOO_CACHE"] = call["cache"] or usual
    sys.argv = ["alignzoo", *call["words"]]
    sys.path[:0] = filter(None, [call["plugins"]])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main()
        except SystemExit as ended:
            status = ended.code or 0
    if call["plugins"]:
        sys.path.remove(call["plugins"])
    os.environ["ALIGNZOO_CACHE"] = usual
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    json.dump([perform(call) for call in json.load(sys.stdin)], sys.stdout)
