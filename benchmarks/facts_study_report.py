"""Figures, tables and picture of `facts_study.py`, from the folders its runs left.

Two levels of noise are kept apart: over the 300 prompts within a seed (the answers to a prompt are
averaged first), and over seeds. Intervals of the tables are over seeds, because a new seed means
new facts, SFT model and preferences: mean +- t(.975, n - 1) SE.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from alignzoo.contract.evaluation import standard_error, win_rate

ROWS = {  # model of the run -> what it is called
    "sft": "SFT",
    "dpo": "DPO, gentle (the teacher)",
    "dpo-tuned": "DPO, best learning rate",
    "dpo-matched": "DPO, compute of the pipeline",
    "aligndistil-off": "AlignDistil, off-policy",
    "aligndistil-on": "AlignDistil, on-policy",
}
COLUMNS = {  # column of the benchmark -> heading
    "win_rate": "win rate",
    "true_reward": "true reward",
    "kl(sft)": "KL to SFT",
    "kl(dpo)": "KL to DPO",
    "length": "length",
    "malformed": "malformed",
}
COMPARED = {
    "dpo": ("dpo-tuned", "dpo-matched", "aligndistil-off", "aligndistil-on"),
    "dpo-tuned": ("dpo-matched", "aligndistil-off", "aligndistil-on"),
    "dpo-matched": ("aligndistil-off", "aligndistil-on"),
}
# 97.5 % quantile of Student's t for 1, 2, ... degrees of freedom; the last one is used beyond.
T_QUANTILE = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)


# --- reading ---------------------------------------------------------------------------------


def values_of(run: Path, model: str) -> dict[str, list[float]]:
    """Column -> one value per prompt."""
    text = (run / "evaluations" / "01-facts" / model / "scores.json").read_text()
    values: dict[str, list[float]] = json.loads(text)["values"]
    return values


def rewards_of(run: Path, model: str) -> list[list[float]]:
    """True reward of every answer, by prompt."""
    file = run / "evaluations" / "01-facts" / model / "answers.jsonl"
    return [json.loads(line)["scores"] for line in file.read_text().splitlines()]


def trained_tokens(run: Path, stage: str) -> int:
    """Tokens (prompt and answer, no padding) that went forward and backward in a stage."""
    (folder,) = (run / "stages").glob(f"[0-9]*-{stage}")
    rows = map(json.loads, (folder / "timing.jsonl").read_text().splitlines())
    return round(sum(row["seconds"] * row["tokens_per_second"] for row in rows if "step" in row))


# --- arithmetic ------------------------------------------------------------------------------


def over_seeds(seeds: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds, its standard error and 95 % t interval."""
    mean, n = statistics.fmean(seeds), len(seeds)
    if n == 1:
        return {"mean": mean, "se": None, "half": None, "seeds": list(seeds)}
    se = statistics.stdev(seeds) / math.sqrt(n)
    return {
        "mean": mean,
        "se": se,
        "half": T_QUANTILE[min(n - 2, len(T_QUANTILE) - 1)] * se,
        "seeds": list(seeds),
    }


def measured(seeds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """`over_seeds` of values by seed and prompt, with the noise of a seed's own prompts."""
    found = over_seeds([statistics.fmean(values) for values in seeds])
    return found | {"se_over_prompts": [standard_error(values) for values in seeds]}


def paired(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Differences on the same prompts."""
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def duel(run: Path, model: str, other: str) -> list[float]:
    """Share of answer pairs that a model wins against another, ties 1/2, by prompt."""
    both = zip(rewards_of(run, model), rewards_of(run, other), strict=True)
    return [win_rate(mine, theirs) for mine, theirs in both]


def compute(run: Path, epochs: Mapping[str, int]) -> dict[str, float]:
    """Work of each way from the pairs to a model, in passes of one token through one model.

    A forward pass counts 1, a backward pass 2. DPO: 3 per trained token and one pass of the
    reference over the pairs, which DPO and reverse DPO share. A student: 3, and 1 each for
    teacher and anchor; on-policy 1 more for sampling with a cache of keys and values.
    """
    pairs = trained_tokens(run, "dpo") / epochs["dpo"]  # per epoch
    teachers = pairs + 3 * trained_tokens(run, "dpo") + 3 * trained_tokens(run, "reverse")
    return {
        "dpo": pairs + 3 * trained_tokens(run, "dpo"),
        "dpo-tuned": pairs + 3 * trained_tokens(run, "dpo-tuned"),
        "dpo-matched": pairs + 3 * trained_tokens(run, "dpo-matched"),
        "aligndistil-off": teachers + 5 * trained_tokens(run, "aligndistil-off"),
        "aligndistil-on": teachers + 6 * trained_tokens(run, "aligndistil-on"),
    }


def summary(runs: Mapping[int, Path]) -> dict[str, Any]:
    """Everything that is reported, as JSON-able values."""
    values = {model: [values_of(run, model) for run in runs.values()] for model in ROWS}
    epochs = {
        stage["name"]: stage["train"]["epochs"]
        for stage in recipe_of(runs)["stages"]
        if "epochs" in stage.get("train", {})
    }
    work = [compute(run, epochs) for run in runs.values()]
    return {
        "about": about(runs),
        "rows": {
            model: {c: measured([seed[c] for seed in seeds]) for c in COLUMNS}
            for model, seeds in values.items()
        },
        "differences": {
            other: {model: compare(runs, values, model, other) for model in models}
            for other, models in COMPARED.items()
        },
        "token_passes": {name: statistics.fmean(w[name] for w in work) for name in work[0]},
        "rates": {s["name"]: s["train"]["lr"] for s in recipe_of(runs)["stages"] if "train" in s},
        "epochs": epochs,
    }


def compare(
    runs: Mapping[int, Path],
    values: Mapping[str, Sequence[Mapping[str, list[float]]]],
    model: str,
    other: str,
) -> dict[str, Any]:
    """One model minus another on the same prompts, and their duel."""
    both = list(zip(values[model], values[other], strict=True))
    differences = {c: measured([paired(a[c], b[c]) for a, b in both]) for c in COLUMNS}
    return differences | {"duel": measured([duel(run, model, other) for run in runs.values()])}


def recipe_of(runs: Mapping[int, Path]) -> dict[str, Any]:
    """The recipe that all seeds share."""
    content: dict[str, Any] = yaml.safe_load(
        (next(iter(runs.values())) / "recipe.yaml").read_text()
    )
    return content


def about(runs: Mapping[int, Path]) -> dict[str, Any]:
    """Seeds, versions, commit and cost."""
    record = json.loads((next(iter(runs.values())) / "run.json").read_text())
    clocks = [run.with_suffix(".cpu.json") for run in runs.values()]
    return {
        "seeds": list(runs),
        "command": "python benchmarks/facts_study.py --seeds " + " ".join(map(str, runs)),
        "commit": commit(),
        "machine": "2-core x86-64, CPU only, 1 thread",
        "versions": record["versions"],
        "plugins": record["plugins"],
        "cpu_seconds": [round(json.loads(c.read_text())) for c in clocks if c.exists()],
    }


def commit() -> str:
    """The commit of the alignzoo that is imported."""
    import alignzoo

    home = Path(alignzoo.__file__).parent
    asked = subprocess.run(
        ["git", "-C", str(home), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"


# --- writing ---------------------------------------------------------------------------------


def markdown(found: Mapping[str, Any]) -> str:
    """The tables."""
    parts = (head, results, reading, differences, grid, by_seed, cost)
    return "\n\n".join(part(found) for part in parts if part(found)) + "\n"


def head(found: Mapping[str, Any]) -> str:
    """What was measured and how."""
    seeds = found["about"]["seeds"]
    return f"""# AlignDistil and DPO on the embedded world: seeds {", ".join(map(str, seeds))}

Every seed draws its own facts, writers, SFT model and preferences. What was tuned was tuned on
other seeds (0-2, below), and nothing was changed afterwards. 300 held-out prompts x 4 answers at
temperature 1, scored by the exact oracle; the answers to a prompt are averaged, so the prompt is
the unit within a seed. Mean over seeds ± half the 95 % interval over seeds (Student's t). Win rate
is against SFT on the same prompts; KL in nats per answer, full vocabulary, on the row's own
answers; length in tokens; malformed in sentences per answer. AlignDistil: r = 2, 40 steps x 64,
initialised from SFT; teacher and anchor are the gentle DPO ({found["epochs"]["dpo"]} epochs,
rate {found["rates"]["dpo"]:g}) and the same on swapped pairs."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def plus_minus(entry: Mapping[str, Any], sign: str = "") -> str:
    """0.731 ± 0.012."""
    half = "" if entry["half"] is None else f" ± {entry['half']:.3f}"
    return f"{entry['mean']:{sign}.3f}{half}"


def named(model: str, found: Mapping[str, Any]) -> str:
    """A row's name, with the learning rate of a DPO."""
    if not model.startswith("dpo"):
        return ROWS[model]
    return f"{ROWS[model]}: {found['epochs'][model]} epochs, {found['rates'][model]:g}"


def results(found: Mapping[str, Any]) -> str:
    """The rows."""
    rows = [
        [named(model, found), *(plus_minus(cells[c]) for c in COLUMNS)]
        for model, cells in found["rows"].items()
    ]
    return "## Results\n\n" + table(["row", *COLUMNS.values()], rows)


def reading(found: Mapping[str, Any]) -> str:
    """What the figures say."""
    return f"## Reading\n\n{found['reading']}" if found["reading"] else ""


def differences(found: Mapping[str, Any]) -> str:
    """The paired differences, one table per model compared with."""
    header = [
        "row",
        "win rate",
        "true reward",
        "seeds above",
        "wins against it",
        "KL to SFT",
        "length",
    ]
    parts = [
        f"### Minus {named(other, found)}\n\n"
        + table(header, [difference_row(m, cells) for m, cells in models.items()])
        for other, models in found["differences"].items()
    ]
    intro = (
        "## Paired differences\n\nSame prompts, seed by seed. In brackets: standard error over "
        "seeds. 'Seeds above': seeds with the higher true reward. 'Wins against it': share of "
        "answer pairs won in direct comparison, ties 1/2."
    )
    return "\n\n".join([intro, *parts])


def difference_row(model: str, cells: Mapping[str, Any]) -> list[str]:
    """One model's differences."""
    rewards = cells["true_reward"]["seeds"]

    def cell(name: str) -> str:
        se = cells[name]["se"]
        return plus_minus(cells[name], "+") + ("" if se is None else f" ({se:.3f})")

    above = f"{sum(x > 0 for x in rewards)} of {len(rewards)}"
    return [
        ROWS[model],
        cell("win_rate"),
        cell("true_reward"),
        above,
        plus_minus(cells["duel"]),
        plus_minus(cells["kl(sft)"], "+"),
        plus_minus(cells["length"], "+"),
    ]


def grid(found: Mapping[str, Any]) -> str:
    """What the learning rates were chosen from."""
    rows = [
        [epochs, lr, ", ".join(f"{x:.3f}" for x in rewards), f"{statistics.fmean(rewards):.3f}"]
        for epochs, rates in found["tuning"].items()
        for lr, rewards in rates.items()
    ]
    intro = (
        "## How DPO was tuned\n\nTrue reward on seeds 0, 1, 2 or on seed 0 alone; the best mean "
    )
    return f"{intro}was taken.\n\n" + table(["epochs", "rate", "true reward", "mean"], rows)


def by_seed(found: Mapping[str, Any]) -> str:
    """Every seed, so that nobody has to trust the mean."""
    seeds = [str(seed) for seed in found["about"]["seeds"]]
    parts = []
    for column in ("win_rate", "true_reward"):
        rows = [[ROWS[m], *figures(cells[column])] for m, cells in found["rows"].items()]
        parts.append(f"### {COLUMNS[column].capitalize()}\n\n" + table(["row", *seeds], rows))
    intro = "## Seed by seed\n\n± is one standard error over the seed's 300 prompts."
    return "\n\n".join([intro, *parts])


def figures(entry: Mapping[str, Any]) -> list[str]:
    """Every seed's value with the noise of its prompts."""
    both = zip(entry["seeds"], entry["se_over_prompts"], strict=True)
    return [f"{mean:.3f} ± {se:.3f}" for mean, se in both]


def cost(found: Mapping[str, Any]) -> str:
    """Compute, command, machine."""
    passes = found["token_passes"]
    whole = max(passes["aligndistil-off"], passes["aligndistil-on"])
    rows = [[ROWS[m], f"{x / 1e6:.2f}", f"{x / whole:.2f}"] for m, x in passes.items()]
    facts = found["about"]
    seconds = facts["cpu_seconds"]
    versions = ", ".join(f"{name} {v}" for name, v in facts["versions"].items())
    return f"""## Compute

From the pairs to the model, in millions of passes of one token through one model (forward 1,
backward 2): DPO 3 per trained token and one pass of the reference over the pairs, which DPO and
reverse DPO share; students 3, 1 each for teacher and anchor, and on-policy 1 for sampling. Padding
is not counted.

{table(["row", "million token passes", "share of on-policy AlignDistil"], rows)}

Command: `{facts["command"]}`, commit {facts["commit"]}, {facts["machine"]}; {versions}.
CPU seconds per seed: {", ".join(map(str, seconds))} (all rows and evaluations; the cores were
shared with other work)."""


# --- drawing ---------------------------------------------------------------------------------


def draw(found: Mapping[str, Any], file: Path) -> None:
    """Win rate and true reward: every seed, mean and 95 % interval. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    for axis, column in zip(axes, ("win_rate", "true_reward"), strict=True):
        rows = {
            m: c[column] for m, c in found["rows"].items() if (m, column) != ("sft", "win_rate")
        }
        draw_rows(axis, rows, list(ROWS).index)
        axis.set_xlabel({"win_rate": "win rate against SFT"}.get(column, "true reward"))
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(ROWS)), [named(model, found) for model in ROWS])
    axes[0].invert_yaxis()
    count = len(found["about"]["seeds"])
    figure.suptitle(f"Embedded world, {count} seeds (points), mean and 95 % interval", fontsize=10)
    figure.savefig(file, dpi=110)


def draw_rows(
    axis: Any, rows: Mapping[str, Mapping[str, Any]], height: Callable[[str], int]
) -> None:
    """Seeds as light points, the mean as a dark one with its interval."""
    for model, entry in rows.items():
        y, color = height(model), "tab:orange" if model.startswith("align") else "tab:blue"
        axis.plot(entry["seeds"], [y - 0.22] * len(entry["seeds"]), ".", color=color, alpha=0.5)
        axis.errorbar(entry["mean"], y, xerr=entry["half"], fmt="o", color=color, capsize=3)
