"""The frame of the commands that measure: processes in turns, what each spent, one table.

CPU seconds are user and system time of a process and of all it started: on a machine with other
work they move by a few per cent, wall time by any factor. A peak is the largest resident set in MB
(10^6 bytes). What a process needs to start is taken off by a second one that does less of the same
work (`beyond`). Whoever is compared takes turns: a machine that slows down slows all alike.

A process inherits the peak of the one that started it, so a small one stands between.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MB = 10**6
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

STARTER = """
import json, os, sys
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
status, used = os.wait4(pid, 0)[1:]
with open(sys.argv[1], "w") as account:
    json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss], account)
sys.exit(os.waitstatus_to_exitcode(status) % 256)
"""


# --- processes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """What a process took."""

    cpu: float  # seconds, user and system
    peak: float  # MB
    said: Mapping[str, Any] = field(default_factory=dict)  # its last line, where that is JSON


def spent(
    command: Sequence[str | Path], folder: Path | None = None, env: Mapping[str, str] | None = None
) -> Spent:
    """Run a command to its end, on one thread, with the sources of this checkout.

    Raises RuntimeError with the end of its output where it fails.
    """
    words = [str(word) for word in command]
    with tempfile.NamedTemporaryFile() as account:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", STARTER, account.name, *words],
            cwd=folder,
            env=os.environ | ONE_THREAD | {"PYTHONPATH": _sources()} | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} failed:\n{done.stdout[-3000:]}")
        cpu, kib = json.loads(account.read())
    return Spent(cpu, kib * 1024 / MB, _json(done.stdout))


def _sources() -> str:
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "plugins"), given)))


def _json(text: str) -> Mapping[str, Any]:
    """The last line as an object, or nothing."""
    try:
        found = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def in_turns(works: Mapping[str, Callable[[], Spent]], rounds: int) -> dict[str, list[Spent]]:
    """Each work once a round, in the opposite order in every other round."""
    found: dict[str, list[Spent]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works)[:: -1 if number % 2 else 1]:
            found[name].append(works[name]())
    return found


def middle(some: Sequence[Spent]) -> Spent:
    """Medians; what was said comes from the last."""
    cpu, peak = (statistics.median(getattr(one, key) for one in some) for key in ("cpu", "peak"))
    return Spent(cpu, peak, some[-1].said)


def beyond(long: Spent, short: Spent) -> Spent:
    """What the longer of two runs took beyond the shorter, which starts up in the same way."""
    if long.cpu <= short.cpu:
        raise RuntimeError(
            f"the longer run took {long.cpu:.2f} s, the shorter {short.cpu:.2f} s: the work "
            "between them is lost in the start; take more of it"
        )
    return Spent(long.cpu - short.cpu, long.peak, long.said)


# --- arithmetic ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """Least squares: y = slope x + start."""

    slope: float
    start: float
    fit: float  # R^2: the share of the variance of y that the line explains

    @classmethod
    def through(cls, xs: Sequence[float], ys: Sequence[float]) -> Line:
        """Of at least three points."""
        slope, start = statistics.linear_regression(xs, ys)
        mean = statistics.fmean(ys)
        left = sum((y - slope * x - start) ** 2 for x, y in zip(xs, ys, strict=True))
        whole = sum((y - mean) ** 2 for y in ys)
        return cls(slope, start, 1 - left / whole if whole else 1.0)


# --- what is shown ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """What a figure must keep to, and what it should reach."""

    must: float
    goal: float
    at_most: bool = True

    def told(self, value: float) -> str:
        """In words, beside the value."""
        sign = "<=" if self.at_most else ">="
        return f"{sign} {self.must:g} ({self.goal:g}) | {self._verdict(value)}"

    def _verdict(self, value: float) -> str:
        def kept(limit: float) -> bool:
            return value <= limit if self.at_most else value >= limit

        return "goal" if kept(self.goal) else "kept" if kept(self.must) else "**missed**"


def about(packages: Sequence[str] = ("torch", "transformers")) -> dict[str, Any]:
    """Commit, versions, machine and how busy it is."""
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if "model name" in x), model)
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in packages},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {model}",
        "load": round(os.getloadavg()[0], 1),
    }


def commit() -> str:
    """Of this checkout; a plus says that files were changed since."""
    ask = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(ask, capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout.strip() or "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def parser(doc: str) -> argparse.ArgumentParser:
    """What every command takes."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="all figures as one line of JSON, last")
    made.add_argument("--small", action="store_true", help="toy sizes: the figures mean nothing")
    made.add_argument("--rounds", type=int, default=1, help="medians of so many turns")
    return made


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one kind as Markdown."""
    lines = [" | ".join(rows[0]), "|".join("---" for _ in rows[0])]
    lines += [" | ".join(_shown(x) for x in row.values()) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _shown(x: Any) -> str:
    return f"{x:.4g}" if isinstance(x, float) else str(x)


def progress(text: str) -> None:
    """Something for people who wait."""
    print(text, file=sys.stderr, flush=True)


def show(
    asked: argparse.Namespace,
    rows: Sequence[Mapping[str, Any]],
    figures: Mapping[str, float],
    bars: Mapping[str, Bar],
) -> None:
    """The table, the figures beside their bars and, if asked for, all of it as JSON."""
    facts = about()
    versions = ", ".join(f"{name} {x}" for name, x in facts["versions"].items())
    print(f"commit {facts['commit']}; {versions}; {facts['machine']}; load {facts['load']}\n")
    print(table(rows), end="\n\n")
    print("| figure | value | must (goal) | |\n|---|---|---|---|")
    for name, x in figures.items():
        print(f"| {name} | {x:.3g} | {bars[name].told(x) if name in bars else ' | '} |")
    if asked.json:
        small = {"small": True} if asked.small else {}
        print(json.dumps({**facts, **small, **figures, "rows": list(rows)}))
