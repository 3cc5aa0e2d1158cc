"""How fast the same reward is learned when credit goes to an answer, a token, or a distribution.

    python benchmarks/credit_granularity.py --seeds 3 4 5 6 7 8 9 10
    python benchmarks/credit_granularity.py --seeds 3 4 5 6 7 8 9 10 --batch 8

The protocol of Figure 2 of arXiv:2503.02832, from recipes/credit_granularity.yaml: bandit, token
REINFORCE and AlignDistil with a constant weight on the same prompts and sampling noise, every
method at every learning rate of the grid. A method's best rate is the one whose policy the oracle
likes best, mean over the seeds, and not the one whose proxy rises fastest. Each seed is one
`alignzoo run` with a world, SFT model and preferences of its own; finished stages are reused, so an
interrupted run goes on. Writes results/credit_granularity[-batchN].{json,md,png} beside this file.
"""

from __future__ import annotations

import argparse
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
RECIPE = ROOT / "recipes" / "credit_granularity.yaml"
RESULTS = Path(__file__).parent / "results"
METHODS = {
    "bandit": "sentence (bandit)",
    "reinforce": "token (REINFORCE)",
    "aligndistil": "distribution (AlignDistil)",
}
LAST = "aligndistil"  # its plateau sets the level
RATES = (1e-4, 3e-4, 6e-4, 1e-3, 3e-3)  # wide enough that no best rate is its edge
SHARE = 0.75  # of the way from the start to the plateau
TAIL = 10  # steps that make the plateau
SMOOTH = {8: 5, 32: 3}  # batch -> steps of the moving average


@dataclass(frozen=True)
class Trial:
    """One method at one rate on one seed."""

    method: str
    rate: float
    seed: int
    curve: tuple[float, ...]  # reward/token_avg of every step
    win: float  # oracle win rate against SFT
    true_reward: float
    length: float
    kl: float  # to the DPO model, nats per answer


# --- running ---------------------------------------------------------------------------------


def trial_name(method: str, rate: float) -> str:
    """E.g. bandit-0.0003."""
    return f"{method}-{rate:g}"


def recipe(seed: int, batch: int, rates: Sequence[float]) -> dict[str, Any]:
    """The recipe file with every method stage once per rate."""
    content = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    stages = [s for s in content["stages"] if s["name"] not in METHODS]
    for stage in (s for s in content["stages"] if s["name"] in METHODS):
        stages += [variant(stage, rate, batch) for rate in rates]
    names = [trial_name(method, rate) for method in METHODS for rate in rates]
    (evaluation,) = content["evaluate"]
    evaluate = [{**evaluation, "models": ["sft", "dpo", *names]}]
    return {**content, "seed": seed, "stages": stages, "evaluate": evaluate}


def variant(stage: Mapping[str, Any], rate: float, batch: int) -> dict[str, Any]:
    """A method's stage at another rate and batch."""
    sizes = {"batch_size": batch, "micro_batch_size": batch}
    return {
        **stage,
        "name": trial_name(stage["name"], rate),
        "rollout": {**stage["rollout"], "prompts": batch},
        "train": {**stage["train"], **sizes, "lr": rate},
    }


def run(seed: int, batch: int, rates: Sequence[float], output: Path) -> list[Trial]:
    """All trials of a seed."""
    grid = "-".join(f"{rate:g}" for rate in rates)
    folder = output / f"batch{batch}-{grid}-seed{seed}"
    file = folder.parent / f"{folder.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(recipe(seed, batch, rates), sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "alignzoo.cli", "run", str(file), "--output", str(folder)]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise SystemExit(status)
    return list(trials(folder, seed, rates))


def trials(folder: Path, seed: int, rates: Sequence[float]) -> Iterator[Trial]:
    """What a finished run says."""
    rows = {row["model"]: row["columns"] for row in read_lines(folder / "scores.jsonl")}
    for method in METHODS:
        for rate in rates:
            name = trial_name(method, rate)
            (stage,) = (folder / "stages").glob(f"*-{name}")
            steps = read_lines(stage / "metrics.jsonl")
            curve = tuple(step["reward/token_avg"] for step in steps)
            columns = ("win_rate", "true_reward", "length", "kl(dpo)")
            yield Trial(method, rate, seed, curve, *(rows[name][c]["mean"] for c in columns))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- reading the curves ----------------------------------------------------------------------


def smooth(curve: Sequence[float], width: int) -> list[float]:
    """Mean of the last `width` steps at every step (fewer at the start)."""
    return [statistics.fmean(curve[max(0, i + 1 - width) : i + 1]) for i in range(len(curve))]


def steps_to(curve: Sequence[float], level: float) -> int:
    """First step, counted from 1, at which the curve is at the level; one too many if never."""
    return next((i for i, x in enumerate(curve, 1) if x >= level), len(curve) + 1)


def rates_of(found: Sequence[Trial]) -> list[float]:
    """The grid."""
    return sorted({t.rate for t in found})


def best_rate(found: Sequence[Trial], method: str) -> float:
    """The rate with the highest oracle win rate, mean over the seeds."""
    return max(rates_of(found), key=lambda rate: mean(t.win for t in of(found, method, rate)))


def of(found: Sequence[Trial], method: str, rate: float) -> list[Trial]:
    """The seeds of one cell of the grid."""
    return [t for t in found if (t.method, t.rate) == (method, rate)]


def levels(found: Sequence[Trial]) -> dict[int, float]:
    """Seed -> reward at SHARE of the way to AlignDistil's plateau at its best rate."""
    best = of(found, LAST, best_rate(found, LAST))
    starts = {t.seed: t.curve[0] for t in best}  # all methods start with the same answers
    return {
        t.seed: starts[t.seed] + SHARE * (statistics.fmean(t.curve[-TAIL:]) - starts[t.seed])
        for t in best
    }


def steps_of(found: Sequence[Trial], method: str, rate: float, batch: int) -> list[int]:
    """Steps to the level, by seed."""
    level = levels(found)
    cells = of(found, method, rate)
    return [steps_to(smooth(t.curve, SMOOTH.get(batch, 3)), level[t.seed]) for t in cells]


def mean(values: Iterator[float] | Sequence[float]) -> float:
    """Arithmetic mean."""
    return statistics.fmean(values)


def spread(values: Sequence[float]) -> str:
    """Mean and standard error over seeds."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{mean(values):.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}")


# --- the report ------------------------------------------------------------------------------


def markdown(found: Sequence[Trial], batch: int, command: str) -> str:
    """Tables of the grid and of the best rates."""
    seeds = sorted({t.seed for t in found})
    limit = len(found[0].curve)
    head = (
        f"# Credit granularity, batch {batch}\n\n"
        f"Command: `{command}`, commit {commit()}, {machine()}.\n"
        f"Seeds {', '.join(map(str, seeds))}; {limit} steps; mean ± standard error over seeds.\n\n"
        f"`steps` is when the {SMOOTH.get(batch, 3)}-step mean of `reward/token_avg` has come "
        f"{SHARE:.0%} of the way from the start to AlignDistil's plateau (the last {TAIL} steps at "
        f"its best rate), seed by seed; >{limit}: not within the run. The best rate of a method, "
        "in bold, has the highest oracle win rate.\n\n"
    )
    return head + grid_table(found, batch, limit) + "\n" + speed_table(found, batch, limit)


def grid_table(found: Sequence[Trial], batch: int, limit: int) -> str:
    """Every method at every rate."""
    rows = [
        "| credit | lr | steps by seed | median | oracle win | true reward | length | KL to DPO |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|")
    for method, title in METHODS.items():
        for rate in rates_of(found):
            cells = of(found, method, rate)
            steps = steps_of(found, method, rate, batch)
            shown = f"{rate:g}" if rate != best_rate(found, method) else f"**{rate:g}**"
            figures = [spread([t.win for t in cells]), spread([t.true_reward for t in cells])]
            figures += [f"{mean(t.length for t in cells):.1f}", f"{mean(t.kl for t in cells):.2f}"]
            middle = counted(statistics.median(steps), limit)
            listed = " / ".join(counted(s, limit) for s in steps)
            rows.append(f"| {title} | {shown} | {listed} | {middle} | {' | '.join(figures)} |")
    return "\n".join(rows) + "\n"


def counted(steps: float, limit: int) -> str:
    """A number of steps, or that the run was too short."""
    return f">{limit}" if steps > limit else f"{steps:g}"


def speed_table(found: Sequence[Trial], batch: int, limit: int) -> str:
    """Steps relative to AlignDistil, each method at its best rate."""
    base = steps_of(found, LAST, best_rate(found, LAST), batch)
    rows = ["| each at its best rate | steps / AlignDistil's, by seed | geometric mean |"]
    rows.append("|---|---|---|")
    for method, title in METHODS.items():
        steps = steps_of(found, method, best_rate(found, method), batch)
        ratios = [a / b for a, b in zip(steps, base, strict=True)]
        bound = "at least " if max(steps) > limit else ""
        centre = statistics.geometric_mean(ratios)
        rows.append(f"| {title} | {' / '.join(f'{x:.1f}' for x in ratios)} | {bound}{centre:.2f} |")
    return "\n".join(rows) + "\n"


def commit() -> str:
    """Of this working tree; "+" when something in it is changed."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """What the figures were made on."""
    return f"{os.cpu_count()} cores ({platform.machine()}), one thread"


def draw(found: Sequence[Trial], batch: int, file: Path) -> None:
    """Curves at the best rates beside the oracle win rate over the grid. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates = rates_of(found)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for number, (method, title) in enumerate(METHODS.items()):
        rate, color = best_rate(found, method), f"C{number}"
        curves = [smooth(t.curve, SMOOTH.get(batch, 3)) for t in of(found, method, rate)]
        for curve in curves:
            left.plot(range(1, len(curve) + 1), curve, color=color, alpha=0.2, lw=0.8)
        middle = [statistics.median(column) for column in zip(*curves, strict=True)]
        left.plot(range(1, len(middle) + 1), middle, color=color, lw=2, label=f"{title}, {rate:g}")
        for each in rates:
            wins = [t.win for t in of(found, method, each)]
            right.plot([each] * len(wins), wins, ".", color=color, alpha=0.4)
        wins = [mean(t.win for t in of(found, method, each)) for each in rates]
        right.plot(rates, wins, "o-", color=color)
    left.set(xlabel=f"step (batch {batch})", ylabel="reward per token (proxy)")
    left.axhline(mean(list(levels(found).values())), color="grey", lw=0.8, ls=":")
    left.legend(fontsize=8)
    right.axhline(0.5, color="grey", lw=0.8, ls=":")
    right.set(xlabel="learning rate", ylabel="oracle win rate against SFT", xscale="log")
    right.set_xticks(rates, [f"{rate:g}" for rate in rates])
    right.minorticks_off()
    figure.suptitle("Median over seeds (thin: each seed) and oracle win rate", fontsize=10)
    figure.savefig(file, dpi=100)


def main() -> None:
    """Run the seeds that are asked for and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(3, 11)))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "credit_granularity")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rates = sorted(given.rates)
    found = [t for s in given.seeds for t in run(s, given.batch, rates, given.output)]
    seeds = " ".join(map(str, given.seeds))
    command = f"python benchmarks/credit_granularity.py --seeds {seeds} --batch {given.batch}"
    if tuple(rates) != RATES:
        command += " --rates " + " ".join(f"{rate:g}" for rate in rates)
    suffix = "" if given.batch == 32 else f"-batch{given.batch}"
    given.results.mkdir(parents=True, exist_ok=True)
    base = given.results / f"credit_granularity{suffix}"
    base.with_suffix(".json").write_text(
        json.dumps({"command": command, "trials": [asdict(t) for t in found]}, indent=1) + "\n"
    )
    text = markdown(found, given.batch, command)
    base.with_suffix(".md").write_text(text, encoding="utf-8")
    draw(found, given.batch, base.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
