"""The interpreter that would run a server, and what it has; no server is started to know it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

TRAINER = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "GROUP_", "TORCHELASTIC", "ACCELERATE_")
PYTHON = "`python` or $ALIGNZOO_VLLM_PYTHON must be an interpreter that has vLLM"
PATIENCE = 60  # seconds
# Names of distributions are asked for, because importing vLLM takes half a minute.
ASK = """
from importlib.metadata import distributions
from importlib.util import find_spec
found = {d.name.lower().replace("_", "-"): d.version for d in distributions() if d.name}
names = [n for n in sorted(found) if n in ("torch", "transformers") or n.split("-")[0] == "vllm"]
print(", ".join(f"{n} {found[n]}" for n in names) if find_spec("vllm") else "")
"""


@dataclass(frozen=True)
class Installed:
    """What an interpreter has for serving, such as "torch 2.13.0, vllm 0.32.0", or its fault."""

    versions: str | None = None
    fault: str = ""


def environment(python: str) -> dict[str, str]:
    """What a server inherits: nothing of the trainer's group, and no path of another interpreter's
    packages.
    """
    own = {key: x for key, x in os.environ.items() if not key.startswith(TRAINER)}
    if python != sys.executable:
        own.pop("PYTHONPATH", None)
    return own


@functools.cache
def installed(python: str) -> Installed:
    """Asked once: an installation that changes under a run is none."""
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    try:
        done = subprocess.run(
            [python, "-c", ASK], env=environment(python), timeout=PATIENCE, check=False, **how
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        late = isinstance(error, subprocess.TimeoutExpired)
        return Installed(fault=f"{python} gave no answer in {PATIENCE} s" if late else str(error))
    if done.returncode:
        last = "".join(done.stderr.strip().splitlines()[-1:])
        return Installed(fault=f"{python} ended with exit status {done.returncode} {last:.200}")
    found = done.stdout.strip()
    return Installed(found) if found else Installed(fault=f"{python} has no package vllm")
