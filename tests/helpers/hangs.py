"""Runs of several processes in which something goes wrong, and how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAD = "name: hang\nmodel: facts\nthreads: 1\nstages:\n"
OFFLINE = """
  - name: sft
    algorithm: faulty
    data: {name: faulty.text, with: {size: 24}}
    train: {steps: 6, batch_size: 8, micro_batch_size: 4, lr: 1e-3, save_every: 2}
"""
ROLLOUT = """
  - name: online
    algorithm: faulty_rollout
    data: {name: facts.prompts, with: {size: 16}}
    rollout:
      prompts: 8
      samples_per_prompt: 1
      sampling: {max_new_tokens: 6}
      reward: {judge: faulty}
    train: {steps: 6, batch_size: 8, micro_batch_size: 4, lr: 1e-3, save_every: 2}
"""


Disturb = Callable[[list[subprocess.Popen[str]], Path], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: int
    seconds: float  # from the start, or from the fault where there was one
    said: str  # stderr
    shown: str  # stdout
    record: dict[str, object]  # run.json
    orphans: tuple[int, ...]


@dataclass(frozen=True)
class Setup:
    """A run in which something goes wrong."""

    name: str
    says: str  # pattern of a line that is printed
    recipe: str = OFFLINE
    faults: str = ""
    status: int = 1
    words: tuple[str, ...] = ("--processes", "2")
    environment: dict[str, str] = field(default_factory=dict)
    disturb: Disturb | None = None
    machines: tuple[tuple[str, ...], ...] = ()  # what each machine's command has beside the words
    of: int = 0  # the machine whose end is looked at
    launcher: tuple[str, ...] = ()  # what starts the processes instead of `--processes`
    worker: int | None = None  # that run.json names
    limit: float = 60.0

    def wrong(self, outcome: Outcome) -> list[str]:
        """What is not as it must be."""
        checks = {
            f"status {outcome.status}": outcome.status == self.status,
            f"{outcome.seconds:.0f} s": outcome.seconds <= self.limit,
            f"orphans {outcome.orphans}": not outcome.orphans,
            f"says {outcome.said[-600:]!r}": bool(
                re.search(self.says, f"{outcome.said}\n{outcome.shown}", re.MULTILINE)
            ),
            "complains": self.status != 0 or "error" not in outcome.said,
            f"names worker {outcome.record.get('worker')}": self.worker is None
            or outcome.record.get("worker") == self.worker,
            "shows a symptom": bool(self.launcher)
            or not re.search("by peer|Traceback", outcome.said),
        }
        return [what for what, fine in checks.items() if not fine]


def plugin_folder(folder: Path) -> Path:
    """A folder for PYTHONPATH in which the faulty plug-in is installed."""
    info = folder / "plugins" / "faulty-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[alignzoo]\nfaulty = faulty_plugin\n")
    source = Path(__file__).with_name("faulty_plugin.py").read_text()
    (folder / "plugins" / "faulty_plugin.py").write_text(source)
    return folder / "plugins"


def start(setup: Setup, folder: Path, words: Sequence[str]) -> subprocess.Popen[str]:
    """`alignzoo run` in a process of its own; `folder` holds recipe, run, cache and plug-in."""
    file = folder / "recipe.yaml"
    file.write_text(HEAD + setup.recipe)
    path = [str(plugin_folder(folder)), str(ROOT), str(ROOT / "plugins")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]),
        "ALIGNZOO_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "FAULTS": setup.faults,
        "FAULT_AT": str(folder / "fault"),
        "HANG": folder.name,
        **setup.environment,
    }
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [*setup.launcher, "-m", "alignzoo", "run", str(file), "--output", str(folder / "run")]
    return subprocess.Popen(
        [sys.executable, *command, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def outcome_of(setup: Setup, folder: Path) -> Outcome:
    """Run a set-up to its end, or to the end of our patience; of several machines, the first's."""
    place = folder / uuid.uuid4().hex
    place.mkdir()
    address = ["--main-address", f"127.0.0.1:{free_port()}"] if setup.machines else []
    command = [*setup.words, *address]
    processes = [start(setup, place, [*command, *words]) for words in setup.machines or [()]]
    began = time.time()
    if setup.disturb:
        setup.disturb(processes, place)
    shown, said = ended(processes[setup.of], 4 * setup.limit)
    fault = place / "fault"
    seconds = time.time() - (fault.stat().st_mtime if fault.exists() else began)
    for process in processes:
        process.send_signal(signal.SIGCONT)  # one that was stopped must then end as well
        ended(process, 60)
    record = place / "run" / "run.json"
    time.sleep(0.5)
    orphans = tuple(family(place.name))
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    found = json.loads(record.read_text()) if record.exists() else {}
    return Outcome(processes[setup.of].returncode, seconds, said, shown, found, orphans)


def ended(process: subprocess.Popen[str], patience: float) -> tuple[str, str]:
    """What a process wrote until its end."""
    try:
        return process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def family(mark: str, rank: int | None = None) -> list[int]:
    """Living processes that belong to a run, or its worker of that rank."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        ours = f"HANG={mark}".encode() in variables
        if ours and state != "Z" and (rank is None or f"RANK={rank}".encode() in variables):
            found.append(int(folder.name))
    return found


def when_training(act: Callable[[list[subprocess.Popen[str]], Path], None]) -> Disturb:
    """Do something as soon as the first step is logged."""

    def wait(processes: list[subprocess.Popen[str]], place: Path) -> None:
        logs = place / "run" / "stages"
        while processes[0].poll() is None and not list(logs.glob("*/metrics.jsonl")):
            time.sleep(0.1)
        (place / "fault").touch()
        act(processes, place)

    return wait


def send(number: int, *, machine: int = 0, rank: int | None = None) -> Disturb:
    """Send a signal to a launching process, or to one worker."""

    def act(processes: list[subprocess.Popen[str]], place: Path) -> None:
        targets = [processes[machine].pid] if rank is None else family(place.name, rank)
        for pid in targets:
            os.kill(pid, number)

    return act
