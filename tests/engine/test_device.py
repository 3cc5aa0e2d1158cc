"""Every path of training on an accelerator that is only pretended: nothing is left on the CPU.

`pretend_device.py` says what that shows, and what it does not.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).parents[1] / "helpers"
MIXED = """
import torch
from pretend_device import begin
device = begin()
x = torch.ones(3, device=device)
assert x.device == device and (x * 2).sum().item() == 6
assert (x + torch.tensor(1.0)).device == device and x[torch.tensor([0])].device == device
for wrong in (
    lambda: x + torch.ones(3),
    lambda: torch.stack([x[0], torch.tensor(1.0)]),
    lambda: torch.ones(3)[x.long()],
    lambda: torch.rand(3, device=device, generator=torch.Generator()),
):
    try:
        wrong()
    except RuntimeError:
        continue
    raise SystemExit("a mixture of devices was taken")
"""


def python(*words):
    done = subprocess.run(
        [sys.executable, *words], check=False, cwd=HELPERS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def walked():
    return json.loads(python("device_walk.py").splitlines()[-1])


def test_the_pretended_device_refuses_what_an_accelerator_refuses():
    python("-c", MIXED)


def test_every_method_trains_there_as_here(walked):
    for name, found in walked.items():
        if name in ("bf16", "broken", "repeated"):
            continue
        assert isinstance(found, list), f"{name}: {found}"
        here, there = found
        assert there == pytest.approx(here, rel=1e-4, abs=1e-4), name
        assert here


def test_bf16_there_gives_numbers_near_those_in_float32(walked):
    assert isinstance(walked["bf16"], list), walked["bf16"]
    for name, found in zip(("dpo", "aligndistil", "ppo"), walked["bf16"], strict=True):
        assert all(map(math.isfinite, found))
        assert found[0] == pytest.approx(walked[name][0][0], rel=0.05), name


def test_a_repeated_and_a_resumed_run_there_give_the_same_numbers(walked):
    first, *others = walked["repeated"]
    assert first and others == [first, first]


def test_a_number_that_is_none_is_found_there_as_here(walked):
    here, there = walked["broken"]
    assert here == there
    assert "signal 'policy' is nan" in here
