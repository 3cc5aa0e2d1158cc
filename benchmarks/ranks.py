"""Two processes against one under every strategy, and runs that go on under another one.

    python benchmarks/ranks.py [--strategies ddp fsdp2 zero2 zero3] [--steps 20]
    python benchmarks/ranks.py --rounding     # only the last table, anew

A small SFT model, its preferences and two DPO models of the facts world are made once. From them
`alignzoo run` trains every method for some steps in float32: alone, and with `--processes 2` under
each strategy, which asserts that it is engaged. On-policy methods learn from the answers that the
run alone sampled; the others sample too, and answers that differ are counted. Then a run that is
stopped on two processes under FSDP2 goes on alone, under DDP and under ZeRO-3. Last, one process
is compared with itself and with float64, see rounding.py.

Writes results/ranks.{json,md} beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import rounding
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
SIZE = 2
LOSS, NORM = 1e-5, 1e-4  # the bounds: absolute, relative
SAMPLING = {"max_new_tokens": 24}
PREPARE = f"""
name: ranks-prepare
model: facts
seed: 3
threads: 1
stages:
  - name: sft
    algorithm: sft
    data: {{name: facts.sft, with: {{size: 6000}}}}
    train: {{batch_size: 32, lr: 3e-3}}
  - name: answers
    stage: generate
    policy: sft
    data: {{name: facts.prompts, with: {{size: 400}}}}
    samples: 2
    sampling: {json.dumps(SAMPLING)}
  - {{name: pairs, stage: label, data: answers, judge: facts.annotator, choose: bradley_terry}}
  - name: dpo
    algorithm: dpo
    policy: sft
    data: pairs
    train: {{steps: 30, batch_size: 32, lr: 1e-3}}
  - name: reverse
    algorithm: dpo
    policy: sft
    data: {{name: pairs, swap: true}}
    train: {{steps: 30, batch_size: 32, lr: 1e-3}}
"""
PROMPTS = {"name": "facts.prompts", "with": {"size": 400}}
OFFLINE = {
    "sft": {"data": {"name": "facts.sft", "with": {"size": 400}}},
    "dpo": {},
    "kto": {},
    "distil-off": {"algorithm": "aligndistil", "with": {"r": 2}},
}
ON_POLICY = {
    "distil-on": ("aligndistil", {"with": {"r": 2}}, {"prompts": 18}),
    "ppo": ("ppo", {}, {"prompts": 36, "epochs": 2, "reward": {"judge": "facts.oracle"}}),
    "grpo": (
        "grpo",
        {"with": {"kl_coef": 0.04}},
        {"prompts": 9, "samples_per_prompt": 4, "epochs": 2, "reward": {"judge": "facts.oracle"}},
    ),
    "rto": ("rto", {}, {"prompts": 36, "epochs": 2}),
}


def stages(place: Path, steps: int, first: bool):
    """Every method from the same models; 18 items a step in micro-batches of 4, shares of 9."""
    pairs = {"name": str(place / "prepare/stages/03-pairs/data.jsonl")}
    models = {n: str(place / f"prepare/stages/{n}/model") for n in ("04-dpo", "05-reverse")}
    both = {"teacher": models["04-dpo"], "anchor": models["05-reverse"]}
    roles = {"distil-off": both, "distil-on": both, "rto": {"teacher": models["04-dpo"]}}
    train = {"steps": steps, "batch_size": 18, "micro_batch_size": 4, "lr": 3e-4}
    for name, more in OFFLINE.items():
        own = {"algorithm": name, "data": pairs, "train": train, **more}
        yield {"name": name, **own, **({"roles": roles[name]} if name in roles else {})}
    for name, (algorithm, more, rollout) in ON_POLICY.items():
        folder = place / "recorded" / name
        folder.mkdir(parents=True, exist_ok=True)
        engine = {"engine": "recorded", "with": {"folder": str(folder), "first": first}}
        own = {"algorithm": algorithm, "data": PROMPTS, "train": train, **more}
        own["rollout"] = {**rollout, **engine, "sampling": SAMPLING}
        yield {"name": name, **own, **({"roles": roles[name]} if name in roles else {})}


def recipe(place: Path, name: str, found) -> Path:
    """A file that trains these stages, each from the shared SFT model."""
    file = place / f"{name}.yaml"
    model = str(place / "prepare/stages/01-sft/model")
    made = {"name": "ranks", "model": model, "seed": 3, "threads": 1, "stages": list(found)}
    file.write_text(yaml.safe_dump(made, sort_keys=False))
    return file


def command(file: Path, output: Path, size: int, strategy: str) -> list[str]:
    """The command line of a run."""
    words = [sys.executable, "-m", "alignzoo", "run", str(file), "--output", str(output)]
    several = ["--processes", str(size)] if size > 1 else []
    return [*words, *several, "--set", f"parallel.strategy={strategy}"]


def environment(place: Path, label: str) -> dict[str, str]:
    """Quiet, one thread, a cache of the run's own, and the recording plug-in on the path."""
    plugin = place / "plugin"
    info = plugin / "recorded_rollouts-0.dist-info"
    if not info.exists():
        info.mkdir(parents=True)
        shutil.copy(HERE / "recorded_rollouts.py", plugin)
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: recorded-rollouts\nVersion: 0\n"
        )
        (info / "entry_points.txt").write_text(
            "[alignzoo]\nrecorded_rollouts = recorded_rollouts\n"
        )
    path = [str(plugin), str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "ALIGNZOO_CACHE": str(place / f"cache-{label}"),
        "RANKS_LABEL": label,
        **{"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    }


def run(
    place: Path, file: Path, label: str, size: int, strategy: str, double: bool = False
) -> Path:
    """One run to its end; its folder."""
    output = place / label
    words = command(file, output, size, strategy)
    if double:
        words = [words[0], "-c", rounding.DOUBLE, *words[3:]]
    done = subprocess.run(
        words,
        env=environment(place, label),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{label}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return output


def rows(run: Path, stage: str) -> list[dict[str, float]]:
    """What a stage logged."""
    (folder,) = (run / "stages").glob(f"*-{stage}")
    return [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]


def compared(one, other) -> dict[str, float]:
    """Largest difference of losses, and largest relative one of gradient norms."""
    pairs = list(zip(one, other, strict=True))
    norms = [key for key in one[0] if key.startswith("grad_norm")]
    return {
        "steps": len(pairs),
        "loss": max(abs(a["loss"] - b["loss"]) for a, b in pairs),
        "grad_norm": max(abs(a[k] - b[k]) / max(a[k], 1e-12) for a, b in pairs for k in norms),
    }


def against_one(place: Path, strategies, steps: int):
    """Rows of the first table."""
    file = recipe(place, "first", stages(place, steps, True))
    alone = run(place, file, "one", 1, "ddp")
    file = recipe(place, "others", stages(place, steps, False))
    for strategy in strategies:
        label = f"{strategy}-{SIZE}"
        several = run(place, file, label, SIZE, strategy)
        for name in (*OFFLINE, *ON_POLICY):
            found = {"strategy": strategy, "method": name}
            found |= compared(rows(alone, name), rows(several, name))
            if name in ON_POLICY:
                found |= sampled(place / "recorded" / name, label)
            yield found


def sampled(folder: Path, label: str) -> dict[str, int]:
    """How many answers were sampled live, and how many of them were others."""
    files = sorted(folder.glob(f"counts-{label}-*.jsonl"))
    counts = [json.loads(row) for file in files for row in file.read_text().splitlines()]
    return {"answers": sum(n for n, _ in counts), "others": sum(n for _, n in counts)}


def stopped(place: Path, file: Path) -> Path:
    """The folder of a run on two processes under FSDP2 that was asked to stop."""
    output = place / "stopped"
    words = command(file, output, SIZE, "fsdp2")
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(words, env=environment(place, "stopped"), **pipes)
    log = next_log(output)
    while process.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) >= 5:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.02)
    process.wait(timeout=120)
    return output


def next_log(output: Path) -> Path:
    """Where the only stage logs."""
    return output / "stages" / "01-dpo" / "metrics.jsonl"


def gone_on(place: Path, strategies):
    """Rows of the second table."""
    (stage,) = (s for s in stages(place, 60, False) if s["name"] == "dpo")
    file = recipe(place, "resumed", [stage])
    whole = rows(run(place, file, "whole", 1, "ddp"), "dpo")
    cut = stopped(place, file)
    done = len(next_log(cut).read_text().splitlines())
    for size, strategy in ((1, "ddp"), (2, "ddp"), (2, "zero3")):
        if strategy not in strategies:
            continue
        label = f"resumed-{strategy}-{size}"
        shutil.copytree(cut, place / label)
        found = rows(run(place, file, label, size, strategy), "dpo")
        five = slice(done, done + 5)
        yield {"processes": size, "strategy": strategy, "stopped_after": done} | compared(
            whole[five], found[five]
        )


def itself(place: Path, steps: int):
    """Rows of the third table."""
    (stage,) = (s for s in stages(place, steps, False) if s["name"] == "distil-off")

    def teachers(own: int) -> dict[str, str]:
        label = f"prepare-{own}"
        file = place / f"{label}.yaml"
        file.write_text(PREPARE.replace("steps: 30", f"steps: {own}"))
        if not (place / label).exists():
            shutil.copytree(place / "cache-prepare", place / f"cache-{label}")
            run(place, file, label, 1, "ddp")
        names = {"teacher": "04-dpo", "anchor": "05-reverse"}
        return {role: str(place / f"{label}/stages/{n}/model") for role, n in names.items()}

    def train(label: str, own, size: int, double: bool):
        file = recipe(place, label, [own])
        return rows(run(place, file, label, size, "ddp", double), "distil-off")

    yield from rounding.measured(stage, teachers, train)


def commit() -> str:
    """What was measured."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def markdown(about, first, second, third) -> str:
    """The tables."""
    head = "| strategy | method | steps | loss | gradient norm | live answers, others |"
    lines = [
        "# Two processes against one",
        "",
        "`python benchmarks/ranks.py`, commit "
        + ", ".join([about["commit"], *(f"{k} {x}" for k, x in about["versions"].items())])
        + f"; {about['cpu_seconds']} CPU seconds, {about['machine']}, no GPU, float32.",
        "",
        f"Largest difference over the steps: of losses (bound {LOSS:g}), and of gradient norms, "
        f"relative (bound {NORM:g}).",
        "",
        head,
        "|---|---|---|---|---|---|",
    ]
    for row in first:
        live = f"{row['answers']}, {row['others']}" if "answers" in row else ""
        lines.append(
            f"| {row['strategy']} | {row['method']} | {row['steps']} | {row['loss']:.1e} "
            f"| {row['grad_norm']:.1e} | {live} |"
        )
    lines += [
        "",
        "A DPO run stopped on two processes under FSDP2; the next five steps elsewhere, against an "
        "undisturbed run of one process:",
        "",
        "| processes | strategy | stopped after | loss | gradient norm |",
        "|---|---|---|---|---|",
    ]
    for row in second:
        lines.append(
            f"| {row['processes']} | {row['strategy']} | {row['stopped_after']} "
            f"| {row['loss']:.1e} | {row['grad_norm']:.1e} |"
        )
    worst = max(row["loss"] for row in [*first, *second])
    norm = max(row["grad_norm"] for row in [*first, *second])
    kept = "all" if worst <= LOSS and norm <= NORM else "NOT all"
    lines += ["", f"Largest of all: {worst:.1e} and {norm:.1e}; {kept} bounds are kept."]
    return "\n".join([*lines, *rounding.told(third["rows"], third["commit"]), ""])


def shown(found):
    """The same rows, printed as they come."""
    for row in found:
        print(json.dumps(row), flush=True)
        yield row


def measured(strategies, steps: int, only_rounding: bool):
    """Everything, or the last table beside what was measured before."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "prepare.yaml").write_text(PREPARE)
        run(place, place / "prepare.yaml", "prepare", 1, "ddp")
        third = {"commit": commit(), "rows": list(shown(itself(place, steps)))}
        if only_rounding:
            return json.loads((RESULTS / "ranks.json").read_text()) | {"rounding": third}
        first = list(shown(against_one(place, strategies, steps)))
        second = list(shown(gone_on(place, strategies)))
    several = any(strategy.startswith("zero") for strategy in strategies)
    names = ("torch", "transformers", "accelerate", *(("deepspeed",) if several else ()))
    about = {
        "commit": commit(),
        "machine": f"{os.cpu_count()}-core {platform.machine()}",
        "versions": {name: version(name) for name in names},
        "cpu_seconds": round(sum(os.times()[2:4])),
    }
    return {"about": about, "against_one": first, "resumed": second, "rounding": third}


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = ["ddp", "fsdp2", "zero2", "zero3"]
    parser.add_argument("--strategies", nargs="+", choices=every, default=every)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounding", action="store_true", help="only the last table")
    wanted = parser.parse_args()
    found = measured(wanted.strategies, wanted.steps, wanted.rounding)
    (RESULTS / "ranks.json").write_text(json.dumps(found, indent=2) + "\n")
    (RESULTS / "ranks.md").write_text(markdown(*found.values()))


if __name__ == "__main__":
    main()
