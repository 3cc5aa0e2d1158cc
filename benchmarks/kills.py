"""Kill a run at every change of the file system, flip bytes of what runs leave, and count.

    python benchmarks/kills.py [--flips 100] [--every 1] [--kind "train offline"]

For every kind of stage: the run is killed before its n-th change below the run's folder and the
cache (at an fsync the file is cut in half first), then run again; the results must be the
undisturbed run's, byte for byte. A flip changes one bit of a file that a killed or finished run
left; the next run must find it, or give the undamaged results.

Writes results/kills.{json,md} beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from kill_points import Place, prepared  # noqa: E402  (the tests use the same)
from kill_recipes import KINDS, leftovers, results  # noqa: E402


def killed(place: Place, point: int) -> str:
    """What came of a kill: "same", or what is wrong."""
    name = f"at-{point}"
    if place.run(name, point)[0] != -9:
        return "not killed"
    if place.run(name)[0]:
        return "stuck"
    if leftovers(place.folder / name):
        return "leftovers"
    return "same" if results(place.folder / name) == place.results else "other results"


def measured(kind: str, flips: int, every: int) -> dict[str, object]:
    """All points and some flips of one kind of stage."""
    with tempfile.TemporaryDirectory() as folder:
        place = prepared(kind, Path(folder))
        points = range(1, place.changes + 1, every)
        ends = {point: killed(place, point) for point in points}
        wrong = {point: end for point, end in ends.items() if end != "same"}
        flipped = [place.flip(seed) for seed in range(flips)]
    return {
        "kind": kind,
        "points": len(points),
        "wrong": wrong,
        "flips": len(flipped),
        "refused": sum(flip.status != 0 for flip in flipped),
        "same": sum(flip.status == 0 and flip.same for flip in flipped),
        "silent": [f"{flip.file} at byte {flip.offset}" for flip in flipped if flip.silent],
    }


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=100, help="in all")
    parser.add_argument("--every", type=int, default=1, help="only every so many points")
    parser.add_argument("--kind", choices=KINDS, help="only this one")
    wanted = parser.parse_args()
    kinds = [wanted.kind] if wanted.kind else list(KINDS)
    started = time.process_time()
    rows = []
    for kind in kinds:
        rows.append(measured(kind, wanted.flips // len(kinds), wanted.every))
        print(json.dumps(rows[-1]), flush=True)
    about = {
        "python": platform.python_version(),
        **{name: version(name) for name in ("alignzoo", "torch", "transformers")},
        "cpu_seconds": round(time.process_time() - started + sum(os.times()[2:4]), 1),
    }
    found = {"rows": rows, "versions": about}
    target = Path(__file__).parent / "results" / "kills"
    target.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    target.with_suffix(".md").write_text("\n".join(page(rows, about)) + "\n")


def page(rows: list[dict[str, object]], about: dict[str, object]) -> list[str]:
    """The table for people."""
    head = ("kind of stage", "points", "stuck or other results", "flips", "refused",
            "undamaged results", "silent differences")  # fmt: skip
    lines = ["# Kills and flips\n", "Written by `python benchmarks/kills.py`.\n"]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = (row["kind"], row["points"], len(row["wrong"]), row["flips"], row["refused"],
                 row["same"], len(row["silent"]))  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, "\n" + ", ".join(f"{key} {value}" for key, value in about.items()) + "."]


if __name__ == "__main__":
    main()
