"""The same walk as on a pretended device, on a real one: kernels and their rounding included."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture(scope="module")
def walked():
    env = {**os.environ, "WALK_ON": "cuda"}
    command = [sys.executable, "device_walk.py"]
    done = subprocess.run(
        command, check=False, cwd=HELPERS, capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    faults = {name: x for name, x in found.items() if not isinstance(x, list)}
    assert not faults, "\n".join(faults.values())
    return found


def test_every_method_trains_on_a_gpu_as_on_the_cpu(walked):
    for name, found in walked.items():
        if name in ("bf16", "broken", "repeated"):
            continue
        here, there = found
        assert there == pytest.approx(here, rel=1e-3, abs=1e-4), name


def test_bf16_gives_numbers_near_those_in_float32(walked):
    for name, found in zip(("dpo", "aligndistil", "ppo"), walked["bf16"], strict=True):
        assert all(map(math.isfinite, found))
        assert found[0] == pytest.approx(walked[name][0][0], rel=0.05), name


def test_a_repeated_and_a_resumed_run_give_the_same_numbers_on_a_gpu(walked):
    first, *others = walked["repeated"]
    assert first and others == [first, first]


def test_a_number_that_is_none_is_found_on_a_gpu(walked):
    here, there = walked["broken"]
    assert here == there
