"""Let runs of several processes go wrong in every way we know, and see how they end.

    python benchmarks/hangs.py [--only NAME]

Every run must end by itself, within its limit after the fault, with a sentence, the right exit
status, the right worker in run.json, and no process left behind.

Writes results/hangs.{json,md} beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from hang_setups import SETUPS
from hangs import Setup, outcome_of

TARGET = Path(__file__).parent / "results" / "hangs"


def measured(setup: Setup) -> dict[str, object]:
    """How one set-up ended."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = outcome_of(setup, Path(folder))
    said = outcome.said.replace(folder, "...").strip().splitlines()
    return {
        "name": setup.name,
        "limit": setup.limit,
        "seconds": round(outcome.seconds, 1),
        "status": outcome.status,
        "worker": outcome.record.get("worker"),
        "said": said[0] if said else "",
        "wrong": setup.wrong(outcome),
    }


def page(rows: list[dict[str, object]], about: dict[str, object]) -> list[str]:
    """The table for people."""
    lines = ["# Runs of several processes that go wrong\n"]
    lines += ["Written by `python benchmarks/hangs.py`. Seconds count from the fault or signal;"]
    lines += ["where there is neither, from the start, which alone takes 10 to 40 s.\n"]
    lines += ["| what goes wrong | s | limit | status | worker | first line | wrong |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        said = str(row["said"])[:150].replace("|", "/")
        wrong = "; ".join(row["wrong"]) or "nothing"
        cells = (row["name"], row["seconds"], row["limit"], row["status"], row["worker"])
        lines.append(f"| {' | '.join(map(str, cells))} | {said} | {wrong[:200]} |")
    return [*lines, "\n" + ", ".join(f"{key} {value}" for key, value in about.items()) + "."]


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a name; other rows stay as they are")
    only = parser.parse_args().only
    file = TARGET.with_suffix(".json")
    before = json.loads(file.read_text())["rows"] if only and file.exists() else []
    known = {row["name"]: row for row in before}
    for setup in SETUPS:
        if only in setup.name:
            known[setup.name] = measured(setup)
            print(json.dumps(known[setup.name]), flush=True)
    rows = [known[setup.name] for setup in SETUPS if setup.name in known]
    versions = {name: version(name) for name in ("alignzoo", "torch", "transformers", "accelerate")}
    about = {"python": platform.python_version(), **versions, "cores": os.cpu_count()}
    file.write_text(json.dumps({"rows": rows, "versions": about}, indent=1) + "\n")
    TARGET.with_suffix(".md").write_text("\n".join(page(rows, about)) + "\n")


if __name__ == "__main__":
    main()
