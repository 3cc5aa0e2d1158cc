"""The command line in several real processes, and what may befall one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# What happens to the processes of a run, said before the command line starts.
KILLED_AFTER = """
import os, signal
from alignzoo.store import parts
keep, left = parts.keep_part, [{n}]
def kept(*given):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    keep(*given)
parts.keep_part = kept
"""
FAILS_IN_SAMPLING = """
import os
from alignzoo.contract.errors import DataError
from alignzoo.engine.sampling.generate import TransformersSession
generate, calls = TransformersSession.generate, []
def failing(*given):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == 2:
        raise DataError("prompt 7: the owl does not know")
    return generate(*given)
TransformersSession.generate = failing
"""
COMMAND = "\nimport sys\nfrom alignzoo.cli import main\nsys.exit(main())\n"


def launched(ranks: int, *words: object, befalls: str = "", folder: Path = Path(), **more: str):
    """`alignzoo WORDS` in so many processes, to which that befalls; the finished torchrun."""
    script = folder / "befalls.py"
    if befalls:
        script.write_text(befalls + COMMAND)
    command = [str(script)] if befalls else ["-m", "alignzoo"]
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.run(
        [sys.executable, *start, *command, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **more},
    )
