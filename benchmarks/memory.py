"""How far the planner's memory is from that of real training, and what the paper's recipe takes.

    python benchmarks/memory.py

Nine stages of other families, methods and settings: the peak of live storages in two steps of the
real training loop on real tensors, beside the prediction on tensors without data. What PyTorch's
allocator had given out at its peak stands beside both. Then the paper's on-policy recipe for 1, 4
and 8 GPUs, from the published shape of Qwen2.5-1.5B alone.

Writes results/memory.{json,md} beside this file. About ten minutes of one core.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
BAR = 0.10
RECIPE = ROOT / "recipes" / "paper" / "aligndistil_onpolicy_qwen2.5-1.5b.yaml"
QWEN = {  # of Qwen2.5-1.5B
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
MIB = 2**20
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from measured_memory import CASES, measured, predicted  # noqa: E402

from alignzoo.plan.memory import Devices, Predictor  # noqa: E402
from alignzoo.recipe.blocks import TrainSpec  # noqa: E402
from alignzoo.recipe.file import load_recipe  # noqa: E402
from alignzoo.recipe.registry import load_plugins  # noqa: E402

HEAD = """# Memory: predicted and real

    python benchmarks/memory.py

{versions}; commit {commit}; one core of {machine}, no GPU.

Peak of live storages over two optimiser steps, in MiB. *Real*: the training loop on real tensors.
*Predicted*: `alignzoo plan --memory`, on tensors without data; nothing in it was fitted to these
stages. *Allocator*: what PyTorch's allocator had given out at its own peak, temporaries of kernels
included. The largest difference is {worst:.1%}; the bar is {bar:.0%}.

| stage | real | predicted | off | allocator |
|---|---|---|---|---|
"""
PAPER = """
## The paper's on-policy recipe

    alignzoo plan {recipe} --memory --gpus N --config FOLDER

with the config of Qwen2.5-1.5B in FOLDER. GB (10^9 bytes) on each GPU at the peak; the worst batch
is 8 pairs (DPO) or 8 answers (AlignDistil) of 2048 tokens. No GPU was at hand: this is a
prediction, and the shares of sharded strategies follow a rule (`alignzoo/engine/memory/spread.py`),
not a walk.

"""


def compared() -> list[dict[str, Any]]:
    """One row per stage, said as they come."""
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            real, allocator = measured(case, Path(folder))
        found = predicted(case)
        row = {"stage": case.name, "real": real, "predicted": found.total}
        rows.append({**row, "allocator": allocator, "moment": found.moment})
        off = found.total / real - 1
        print(f"{case.name}: {real / MIB:.1f} MiB, predicted {found.total / MIB:.1f} ({off:+.1%})")
    return rows


def planned() -> list[dict[str, Any]]:
    """The paper's recipe, stage by stage and strategy by strategy."""
    from alignzoo.cli.doing.memory import COLUMNS, columns

    registry = load_plugins()
    recipe, rows = load_recipe(RECIPE, registry, []), []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(QWEN))
        for n in (1, 4, 8):
            predictor = Predictor(recipe, registry, Devices(n, True, None, Path(folder)))
            for spec in recipe.stages:
                if not isinstance(spec, TrainSpec):
                    continue
                for strategy, peak in predictor.footprint(spec).peaks.items():
                    figures = dict(zip(COLUMNS, columns(peak.bytes), strict=True))
                    row = {"gpus": n, "stage": spec.name, "strategy": strategy}
                    rows.append({**row, "all": peak.total, **figures, "moment": peak.moment})
                    print(n, spec.name, strategy, f"{peak.total / 1e9:.1f} GB")
    return rows


def page(rows: list[dict[str, Any]], paper: list[dict[str, Any]], facts: dict[str, str]) -> str:
    """The tables as Markdown."""
    worst = max(abs(row["predicted"] / row["real"] - 1) for row in rows)
    text = HEAD.format(worst=worst, bar=BAR, **facts)
    for row in rows:
        real, guess, given = (row[k] / MIB for k in ("real", "predicted", "allocator"))
        text += f"| {row['stage']} | {real:.1f} | {guess:.1f} | {guess / real - 1:+.1%} | "
        text += f"{given:.1f} |\n"
    text += PAPER.format(recipe=RECIPE.relative_to(ROOT))
    text += f"| {' | '.join(paper[0])} |\n|{'---|' * len(paper[0])}\n"
    for row in paper:
        sizes = [f"{x / 1e9:.1f}" if isinstance(x, float) else str(x) for x in row.values()]
        text += f"| {' | '.join(sizes)} |\n"
    return text


def main() -> int:
    """Measure, predict, write; 1 if a prediction is further off than the bar."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.strip()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    facts = {"commit": commit, "versions": versions, "machine": platform.machine()}
    rows, paper = compared(), planned()
    (RESULTS / "memory.json").write_text(
        json.dumps({**facts, "stages": rows, "paper": paper}, indent=2) + "\n"
    )
    (RESULTS / "memory.md").write_text(page(rows, paper, facts))
    return int(any(abs(row["predicted"] / row["real"] - 1) > BAR for row in rows))


if __name__ == "__main__":
    sys.exit(main())
