"""How fast a judge is asked, and how much memory that takes.

    python benchmarks/judging_load.py

An endpoint that answers at once (tests/helpers/judge_server.py, a process of its own) is asked
about 1,000, 10,000 and 50,000 questions by the `openai` judge, each number by a new process with an
empty journal, through the code that `alignzoo eval` uses: the survey, the asking with every reply
on disk before it is read, and the reading of the verdicts. Then the complete journal is opened once
more.

Writes results/judging_load.{json,md} beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
ROWS = (1_000, 10_000, 50_000)
WORDS = 300  # in a prompt
RATE = 200  # judgments per second that must be reached
sys.path.insert(0, str(ROOT / "tests" / "helpers"))


# --- one process ---------------------------------------------------------------------------------


def questions(n: int) -> Iterator[Any]:
    """n prompts of about 2,000 characters, made one by one."""
    from alignzoo import Question

    for i in range(n):
        text = f"Grade answer {i} from 1 to 10. " + " ".join(f"word{i + k}" for k in range(WORDS))
        yield Question(str(i), i, (), ({"role": "user", "content": text},))


def resident(name: str) -> float:
    """MiB that this process holds ("VmRSS") or has held at most ("VmHWM")."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024


def measure(url: str, n: int) -> dict[str, float]:
    """Ask n questions; everything that is in the report."""
    from alignzoo_judges.endpoint import Endpoint
    from judge_server import MODEL
    from judging_parts import Grades

    from alignzoo.judging import ask, open_journal, read

    judge = Endpoint(model=MODEL, url=url)
    synced = timed_sync()

    def put() -> None:
        with open_journal(judge) as journal:
            ask(Grades(), judge, lambda: questions(n), journal, again=False, report=lambda _: None)

    def verdicts() -> int:
        with open_journal(judge) as journal:
            return sum(one.verdict is not None for one in read(Grades(), questions(n), journal))

    start, cpu, wall = resident("VmRSS"), time.process_time(), time.perf_counter()
    put()
    asked, spent = time.perf_counter() - wall, time.process_time() - cpu
    syncs, seconds = len(synced), sum(synced)
    wall = time.perf_counter()
    if (parsed := verdicts()) != n:
        raise SystemExit(f"{parsed} of {n} verdicts")
    reading = time.perf_counter() - wall
    wall = time.perf_counter()
    put()
    again = time.perf_counter() - wall
    return {
        "rows": n,
        "seconds": asked,
        "rate": n / asked,
        "cpu_ms": spent / n * 1000,
        "syncs": syncs,
        "sync_seconds": seconds,
        "read_seconds": reading,
        "again_seconds": again,
        "start_mib": start,
        "peak_mib": resident("VmHWM"),
    }


def timed_sync() -> list[float]:
    """The seconds of every fsync from now on."""
    synced, sync = [], os.fsync

    def timed(file: int) -> None:
        began = time.perf_counter()
        sync(file)
        synced.append(time.perf_counter() - began)

    os.fsync = timed
    return synced


# --- all -----------------------------------------------------------------------------------------


def measured(n: int) -> dict[str, float]:
    """The figures of a new process with an empty journal and a server of its own."""
    from judge_server import serving, stats_of

    with tempfile.TemporaryDirectory(prefix="judging-load-") as cache, serving() as url:
        command = [sys.executable, __file__, "--url", url, "--rows", str(n)]
        environment = os.environ | {"ALIGNZOO_CACHE": cache}
        printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        stats = stats_of(url)
        kept = sum(path.stat().st_size for path in Path(cache).rglob("*.jsonl"))
    extra = sum(stats["delivered"].values()) - n  # the questions that probe the server
    return json.loads(printed.stdout) | {"extra": extra, "disk_mib": kept / 2**20}


def report(found: Sequence[dict[str, float]], about: dict[str, str]) -> str:
    """The tables, for people."""
    small, large = found[0], found[-1]
    more = large["peak_mib"] - small["peak_mib"]
    per_row = more * 2**20 / (large["rows"] - small["rows"])
    rows = [
        f"| {f['rows']:,} | {f['rate']:.0f} | {f['cpu_ms']:.2f} | {f['syncs']:,} | "
        f"{f['sync_seconds'] / f['seconds']:.1%} | {f['read_seconds']:.1f} | "
        f"{f['again_seconds']:.1f} | {f['peak_mib']:.0f} | {f['disk_mib']:.1f} |"
        for f in found
    ]
    return "\n".join(
        [
            "# Asking a judge: rate and memory",
            "",
            *(f"* {name}: {value}" for name, value in about.items()),
            "",
            "| rows | judgments/s | CPU ms each | fsyncs | time in fsync | reading, s "
            "| complete again, s | peak RSS, MiB | journal, MiB |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"From {small['rows']:,} to {large['rows']:,} rows the peak grows by {more:.1f} MiB, "
            f"{per_row:.0f} bytes a row: the key and the place of every reply. "
            f"{small['start_mib']:.0f} MiB are Python with its libraries. CPU is that of the "
            "asking process alone; the server has its own. Time in fsync is spent in a thread "
            "while replies go on coming. The bar is "
            f"{RATE} judgments/s: {'met' if min(f['rate'] for f in found) >= RATE else 'MISSED'}.",
            "",
        ]
    )


def conditions() -> dict[str, str]:
    """Where, when and with what the figures were made."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    commit = subprocess.run(command, check=False, capture_output=True, text=True)
    return {
        "command": "python benchmarks/judging_load.py",
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; load average at the start {os.getloadavg()[0]:.1f}",
        "prompts": f"{WORDS} words each, 16 requests under way",
    }


def main() -> None:
    """Measure in this process (--url), or everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.url:
        print(json.dumps(measure(options.url, *options.rows)))
        return
    about = conditions()
    found = [measured(n) for n in options.rows]
    text = report(found, about)
    (RESULTS / "judging_load.json").write_text(json.dumps([about, *found], indent=1) + "\n")
    (RESULTS / "judging_load.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
