"""At which learning rate every row of Table 1 does best, so that no row is a straw man.

    python benchmarks/table1_rates.py --seeds 0 1 2 11 12

Every row of table1_facts.yaml at every rate of its grid, with the row's own budget (epochs or
steps, batch). Parents (SFT, pairs, the two gentle DPO models, reward model) are made once per seed.
A row's best rate has the highest true reward under the exact oracle, mean over the seeds, on 300
held-out prompts x 4 answers. The first seed runs the whole grid; the second the rate that is best
on the first, and two on either side; the others what these two leave open. The table is measured
on other seeds. Each seed is one `alignzoo run`; finished stages are reused when a grid is extended
or a run interrupted.
The reward model is judged by the PPO that it rewards.
Writes results/table1_rates.{json,md} beside this file, anew after every seed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "studies" / "table1_facts.yaml"
RESULTS = Path(__file__).parent / "results"
PAIRS = (1.2e-4, 3e-4, 5e-4, 8e-4, 1.2e-3)
SAMPLED = (1e-4, 3e-4, 6e-4, 1e-3)
DISTIL = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
SCORED = "ppo-by-reward-model"  # PPO at the recipe's rate, its reward model at the grid's
GRID: Mapping[str, tuple[float, ...]] = {  # row -> learning rates
    "dpo-strong": PAIRS,
    "dpo-beta-0.01": (3e-5, 6e-5, *PAIRS),
    "kto": (*PAIRS, 2e-3),
    "simpo": PAIRS,
    "tdpo1": (6e-5, *PAIRS),
    "tdpo2": (*PAIRS, 2e-3, 3e-3),
    "ppo": (*SAMPLED, 2e-3),
    SCORED: (1e-4, 3e-4, 6e-4, 1e-3),
    "rto": (*SAMPLED, 2e-3),
    "aligndistil-off": DISTIL,
    "aligndistil-on": DISTIL,
}
REACH = DISTIL[1:4]
FURTHER: Mapping[int, Mapping[str, tuple[float, ...]]] = {  # rows on which seeds 0 and 1 disagree
    2: {
        "tdpo1": PAIRS,
        "dpo-beta-0.01": (3e-5, 6e-5, *PAIRS[:3]),
        "rto": (*SAMPLED[1:], 2e-3),
        "aligndistil-off": DISTIL,
        "aligndistil-on": DISTIL,
    },
    11: {"tdpo1": PAIRS[:3], "aligndistil-off": REACH, "aligndistil-on": REACH},
    12: {"tdpo1": PAIRS[:3], "aligndistil-off": REACH, "aligndistil-on": REACH},
}
COLUMNS = ("true_reward", "win_rate", "length", "kl(sft)", "malformed")


@dataclass(frozen=True)
class Trial:
    """One row at one rate on one seed."""

    row: str
    rate: float
    seed: int
    columns: Mapping[str, float]  # column -> mean over the prompts


# --- running ---------------------------------------------------------------------------------


def trial_name(row: str, rate: float) -> str:
    """E.g. simpo-0.0003."""
    return f"{row}-{rate:g}"


def recipe(seed: int, grid: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The recipe file with every row of the grid once per rate, and no other row."""
    content = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    (evaluation,) = content["evaluate"]
    fixed = [stage for stage in content["stages"] if is_parent(stage, evaluation["models"])]
    rows = {stage["name"]: stage for stage in content["stages"]}
    trials = [(row, rate) for row, rates in grid.items() for rate in rates]
    tried = [stage for row, rate in trials for stage in stages_of(rows, row, rate)]
    models = ["sft", "dpo", *(trial_name(row, rate) for row, rate in trials)]
    evaluate = [{**evaluation, "models": models}]
    return {**content, "seed": seed, "stages": [*fixed, *tried], "evaluate": evaluate}


def is_parent(stage: Mapping[str, Any], models: Sequence[str]) -> bool:
    """Whether rows are made of it; `dpo` is a row as well, and keeps its rate."""
    return stage["name"] == "dpo" or stage["name"] not in models


def stages_of(
    rows: Mapping[str, Mapping[str, Any]], row: str, rate: float
) -> list[Mapping[str, Any]]:
    """What is trained for one trial."""
    if row != SCORED:
        return [variant(rows[row], rate)]
    scorer, ppo = variant(rows["reward-model"], rate), rows["ppo"]
    bound = {
        "name": trial_name(row, rate),
        "roles": {"critic": scorer["name"]},
        "rollout": {**ppo["rollout"], "reward": {"model": scorer["name"]}},
    }
    return [scorer, {**ppo, **bound}]


def variant(stage: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """A stage at another rate."""
    name = trial_name(stage["name"], rate)
    return {**stage, "name": name, "train": {**stage["train"], "lr": rate}}


def run(seed: int, grid: Mapping[str, Sequence[float]], output: Path) -> list[Trial]:
    """All trials of a seed."""
    text = yaml.safe_dump(recipe(seed, grid), sort_keys=False)
    folder = output / f"seed{seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    file = folder.parent / f"{folder.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "alignzoo.cli", "run", str(file), "--output", str(folder)]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise SystemExit(status)
    return list(trials(folder, seed, grid))


def trials(folder: Path, seed: int, grid: Mapping[str, Sequence[float]]) -> Iterator[Trial]:
    """What a finished run says."""
    lines = (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    found = {row["model"]: row["columns"] for row in map(json.loads, lines)}
    for row, rates in grid.items():
        for rate in rates:
            cells = found[trial_name(row, rate)]
            yield Trial(row, rate, seed, {name: cells[name]["mean"] for name in COLUMNS})


# --- reading ---------------------------------------------------------------------------------


def mean_of(found: Sequence[Trial], row: str, rate: float, column: str) -> float:
    """Over the seeds."""
    return statistics.fmean(
        trial.columns[column] for trial in found if (trial.row, trial.rate) == (row, rate)
    )


def rates_of(found: Sequence[Trial], row: str) -> list[float]:
    """Rising."""
    return sorted({trial.rate for trial in found if trial.row == row})


def best_rate(found: Sequence[Trial], row: str) -> float:
    """Of the rates that every seed has, the one with the highest true reward, mean over seeds."""
    seeds = {trial.seed for trial in found if trial.row == row}
    tried = {(trial.rate, trial.seed) for trial in found if trial.row == row}
    return max(
        (rate for rate in rates_of(found, row) if all((rate, seed) in tried for seed in seeds)),
        key=lambda rate: finite(mean_of(found, row, rate, "true_reward")),
    )


def beside_best(found: Sequence[Trial]) -> dict[str, tuple[float, ...]]:
    """Each row's best rate and two on either side."""
    narrow = {}
    for row in dict.fromkeys(trial.row for trial in found):
        rates = rates_of(found, row)
        at = rates.index(best_rate(found, row))
        narrow[row] = tuple(rates[max(0, at - 2) : at + 3])
    return narrow


def finite(value: float) -> float:
    """A diverged policy is the worst of all."""
    return value if math.isfinite(value) else -math.inf


def at_edge(found: Sequence[Trial], row: str) -> bool:
    """Whether the grid has no rate beyond the best one on one side."""
    rates = rates_of(found, row)
    return best_rate(found, row) in (rates[0], rates[-1])


# --- the report ------------------------------------------------------------------------------


def markdown(found: Sequence[Trial], command: str) -> str:
    """Every row at every rate."""
    seeds = sorted({trial.seed for trial in found})
    lines = [
        "# Learning rates of Table 1",
        "",
        f"Command: `{command}`, commit {commit()}, {machine()}.",
        "",
        "Budget of a row: as in its recipe, the same at every rate. The best rate of a",
        "row, in bold, has the highest true reward, mean over the seeds "
        f"({', '.join(map(str, seeds))}).",
        "",
        "| row | lr | true reward by seed | mean | win rate | length | KL to SFT | malformed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in dict.fromkeys(trial.row for trial in found):
        lines += [table_line(found, row, rate) for rate in rates_of(found, row)]
    edges = [row for row in dict.fromkeys(t.row for t in found) if at_edge(found, row)]
    lines += ["", f"Best rate at the edge of its grid: {', '.join(edges) or 'none'}."]
    return "\n".join(lines) + "\n"


def table_line(found: Sequence[Trial], row: str, rate: float) -> str:
    """One row at one rate."""
    rewards = [t.columns["true_reward"] for t in found if (t.row, t.rate) == (row, rate)]
    means = [f"{mean_of(found, row, rate, column):.3f}" for column in COLUMNS]
    shown = f"**{rate:g}**" if rate == best_rate(found, row) else f"{rate:g}"
    return " | ".join(["| " + row, shown, " / ".join(f"{x:.2f}" for x in rewards), *means]) + " |"


def commit() -> str:
    """Of this working tree; "+" when something in it is changed."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """What the figures were made on."""
    return f"{os.cpu_count()} cores ({platform.machine()}), one thread"


def main() -> None:
    """Run the seeds that are asked for; the report is written after every one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "table1_rates")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    base = given.results / "table1_rates"
    found: list[Trial] = []
    for number, seed in enumerate(given.seeds, start=1):
        first = [trial for trial in found if trial.seed == given.seeds[0]]
        grid = beside_best(first) if first else GRID
        found += run(seed, FURTHER.get(seed, grid), given.output)
        done = " ".join(map(str, given.seeds[:number]))
        command = f"python benchmarks/table1_rates.py --seeds {done}"
        content = {"command": command, "trials": [asdict(trial) for trial in found]}
        base.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
        base.with_suffix(".md").write_text(markdown(found, command), encoding="utf-8")
    print(base.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
