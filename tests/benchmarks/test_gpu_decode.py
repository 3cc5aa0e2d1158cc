"""The script that compares ways of sampling on a GPU, tried without one."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_decode.py"
NEEDS_GPU = {
    "its trial says that it can be replayed",
    "a model that waits says so",
    "and the next one is replayed",
}


def test_the_script_runs_whole_in_toy_shapes_and_both_ways_sample_the_same():
    command = [sys.executable, SCRIPT, "--tiny", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    held = {name: value for name, value in found.items() if isinstance(value, bool)}
    assert {name for name, value in held.items() if not value} == NEEDS_GPU
    times = {name: value for name, value in found.items() if name not in held}
    assert len(times) == 10 and all(value is not None for value in times.values())
