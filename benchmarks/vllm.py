"""On-policy training on the embedded world with vLLM: agreement, a killed server, what is left.

    ALIGNZOO_VLLM_PYTHON=/path/to/python python benchmarks/vllm.py

The interpreter named is that of an environment with vLLM (its CPU build will do; see the README of
plugins/alignzoo_vllm). AlignDistil and GRPO train 20 steps each, and every step is preceded by a
sync of the weights. In the middle of AlignDistil the server is killed: the run must end with a
sentence, and the same command must finish it.

Writes results/vllm.{json,md} beside this file.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path("/dev/shm")
SETTINGS = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
STEPS, KILL_AFTER, SAVE_EVERY, LIMIT = 20, 8, 5, 1e-4
RECIPE = f"""
name: vllm-bar
model: facts
seed: 3
threads: 1
stages:
  - name: sft
    algorithm: sft
    data: {{name: facts.sft, with: {{size: 3000}}}}
    train: {{batch_size: 32, micro_batch_size: 32, lr: 3e-3, betas: [0.9, 0.98]}}
  - name: answers
    stage: generate
    policy: sft
    data: {{name: facts.prompts, with: {{size: 256}}}}
    samples: 2
    sampling: {{max_new_tokens: 32}}
  - {{name: pairs, stage: label, data: answers, judge: facts.annotator, choose: bradley_terry}}
  - name: dpo
    algorithm: dpo
    policy: sft
    data: pairs
    train: &dpo {{batch_size: 32, lr: 1.2e-4}}
  - {{name: reverse, algorithm: dpo, policy: sft, data: {{name: pairs, swap: true}}, train: *dpo}}
  - name: aligndistil
    algorithm: aligndistil
    policy: sft
    roles: {{teacher: dpo, anchor: reverse}}
    with: {{r: 2}}
    data: {{name: facts.prompts, with: {{size: 2000}}}}
    rollout:
      prompts: 32
      sampling: {{max_new_tokens: 32}}
      engine: &engine
        name: vllm
        with: {{arguments: "--enforce-eager --kv-cache-memory-bytes 256M --max-num-seqs 64"}}
    train: &train
      {{steps: {STEPS}, batch_size: 32, lr: 1e-3, betas: [0.9, 0.98], save_every: {SAVE_EVERY}}}
  - name: grpo
    algorithm: grpo
    policy: sft
    data: {{name: facts.prompts, with: {{size: 2000}}}}
    rollout:
      prompts: 8
      samples_per_prompt: 4
      sampling: {{max_new_tokens: 32}}
      reward: {{judge: facts.oracle}}
      engine: *engine
    train: *train
"""


def servers() -> dict[int, str]:
    """Processes of vLLM and their keepers, by number."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "vllm.entrypoints" in words or words.startswith("VLLM::"):
            found[int(file.parent.name)] = words
    return found


def command(recipe: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "alignzoo", "run", str(recipe), "--output", str(folder)]


def steps(stage: Path) -> list[dict[str, float]]:
    file = stage / "metrics.jsonl"
    return [json.loads(x) for x in file.read_text().splitlines()] if file.exists() else []


def trained(folder: Path, name: str) -> dict[str, object]:
    """What a finished stage logged of its rollouts."""
    (stage,) = (folder / "stages").glob(f"*{name}")
    rows = steps(stage)
    rows = map(json.loads, (stage / "timing.jsonl").read_text().splitlines())
    timing = [row["seconds"] for row in rows if "step" in row]
    gaps = [row["rollout/logprob_gap"] for row in rows]
    return {
        "stage": name,
        "steps": len(rows),
        "largest_gap": max(gaps),
        "median_seconds_an_update": round(sorted(timing)[len(timing) // 2], 2),
    }


def killed(recipe: Path, folder: Path, env: dict[str, str]) -> dict[str, object]:
    """Kill the server in the middle of a stage, then run the same command again."""
    log = folder.with_suffix(".log")
    with log.open("w") as out:
        run = subprocess.Popen(command(recipe, folder), env=env, stdout=out, stderr=out)
        while not (found := list(folder.glob("stages/*aligndistil"))) or (
            len(steps(found[0])) < KILL_AFTER
        ):
            assert run.poll() is None, log.read_text()
            time.sleep(0.1)
        server = min(n for n, words in servers().items() if "keeper.py" not in words)
        os.kill(server, signal.SIGKILL)
        begun = time.monotonic()
        run.wait(120)
        seconds = time.monotonic() - begun
    said = log.read_text()
    left = len(servers())
    again = subprocess.run(command(recipe, folder), env=env, check=False)
    return {
        "killed_after_step": KILL_AFTER,
        "seconds_to_the_error": round(seconds, 1),
        "status": run.returncode,
        "said": next(line for line in said.splitlines() if "vLLM server" in line).strip(),
        "processes_left": left,
        "status_of_the_next_run": again.returncode,
        "steps_in_the_end": len(steps(found[0])),
        "numbers": [row["step"] for row in steps(found[0])],
    }


def main() -> None:
    """Measure and write the page."""
    python = os.environ.get("ALIGNZOO_VLLM_PYTHON") or sys.exit("set ALIGNZOO_VLLM_PYTHON")
    before, memory = servers(), set(SHARED.iterdir())
    assert not before, f"a vLLM server runs here already: {before}"
    with tempfile.TemporaryDirectory() as place:
        recipe, folder = Path(place) / "recipe.yaml", Path(place) / "run"
        recipe.write_text(RECIPE)
        kill = killed(recipe, folder, {**os.environ, **SETTINGS, "ALIGNZOO_CACHE": place})
        stages = [trained(folder, name) for name in ("aligndistil", "grpo")]
    ask = "from importlib.metadata import distributions as d; print([x.name + ' ' + x.version"
    ask += " for x in d() if x.name.startswith('vllm')][0])"
    served = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = {
        "stages": stages,
        "kill": kill,
        "left": {"processes": len(servers()), "files": len(set(SHARED.iterdir()) - memory)},
        "versions": {
            "commit": commit.strip(),
            "server": served.strip(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("alignzoo", "torch", "transformers")},
        },
        "date": time.strftime("%Y-%m-%d"),
    }
    target = Path(__file__).parent / "results" / "vllm"
    target.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    target.with_suffix(".md").write_text("\n".join(page(found)) + "\n")
    assert all(row["largest_gap"] <= LIMIT and row["steps"] == STEPS for row in stages), stages
    assert kill["seconds_to_the_error"] <= 30 and kill["status"] != 0, kill
    assert kill["status_of_the_next_run"] == 0 and kill["numbers"] == list(range(1, STEPS + 1)), (
        kill
    )
    assert not kill["processes_left"] and not any(found["left"].values()), found["left"]


def page(found: dict) -> list[str]:
    """The figures for people."""
    lines = ["# Rollouts from vLLM\n", "Written by `python benchmarks/vllm.py`.\n"]
    head = ("stage", "steps, each after a sync", "largest mean log-prob gap, nats",
            "s an update, sampling apart")  # fmt: skip
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in found["stages"]:
        gap, seconds = f"{row['largest_gap']:.1e}", row["median_seconds_an_update"]
        lines.append(f"| {row['stage']} | {row['steps']} | {gap} | {seconds} |")
    kill, left = found["kill"], found["left"]
    lines += [
        f"\nThe bar for the gap is {LIMIT:g} in float32. A server killed after step "
        f"{kill['killed_after_step']} ended the run after {kill['seconds_to_the_error']} s with\n",
        f"    {kill['said']}\n",
        f"and left {kill['processes_left']} processes. The next run went on from the checkpoint of "
        f"step {KILL_AFTER // SAVE_EVERY * SAVE_EVERY} and ended with status "
        f"{kill['status_of_the_next_run']} and {kill['steps_in_the_end']} steps. In the end "
        f"{left['processes']} processes and {left['files']} files in shared memory were left.\n",
        ", ".join(f"{key} {value}" for key, value in found["versions"].items())
        + f"; last run {found['date']}, 2 CPU cores shared with other work.",
    ]
    return lines


if __name__ == "__main__":
    main()
