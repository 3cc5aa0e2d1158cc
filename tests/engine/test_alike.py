"""Processes that train together on other data, as those of a careless plug-in do."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os
from pathlib import Path
from alignzoo_sft import SFT
from engine_jobs import job, rollout
from alignzoo import TextBatch
from alignzoo.contract.errors import DataError
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.parallel.agreement import end
from alignzoo.engine.train.job import Validation
from alignzoo.engine.train.loop import train
from alignzoo_grpo import GRPO
from alignzoo.testing import toy_items
rank, folder = int(os.environ["RANK"]), Path("{folder}")
same, mine = toy_items(TextBatch, 6), toy_items(TextBatch, 6, seed=rank)
held_out = Validation(mine, every=1, metric="loss", sign=-1)
one = Optim(steps=1, batch_size=4, micro_batch_size=2)
cases = {{
    "items": (SFT(), dict(items=mine)),
    "validation": (SFT(), dict(items=same, validation=held_out)),
    "prompts": (GRPO(), dict(rollout=rollout(n_prompts=8 + rank))),
    "alike": (SFT(), dict(items=same)),
}}
for name, (method, given) in cases.items():
    try:
        train(job(folder / name, method, optim=one, **given))
        os.write(1, (name + " trained" + chr(10)).encode())  # at once: the other writes too
    except DataError as error:
        os.write(1, (name + " " + str(error) + chr(10)).encode())
end(0)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What two processes say of every case."""
    folder = tmp_path_factory.mktemp("alike")
    script = folder / "two.py"
    script.write_text(SCRIPT.format(folder=folder))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launch, "--nproc-per-node", "2", str(script)],
        capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("what", ["items", "validation", "prompts"])
def test_processes_that_read_other_data_are_stopped_before_anything_is_learnt(said, what):
    lines = [line for line in said if line.startswith(what)]
    assert len(lines) == 2  # on both, and neither waits for the other
    assert all("the 2 processes read other data" in line for line in lines)


def test_processes_that_read_the_same_train(said):
    assert [line for line in said if line.startswith("alike")] == ["alike trained"] * 2
