"""At which settings the controls of AlignDistil, and the rows of the stories studies, do best.

    python benchmarks/distillation_controls.py                           # all of them
    python benchmarks/distillation_controls.py --only distillation_controls studies/controls_stories

This tunes and nothing else; what is measured is `alignzoo reproduce controls` (and `table1`,
`figure2`, ... `--on stories`), on other seeds. Every row of a recipe at every setting of its grid
on tuning seed 0, and what was best or second there on tuning seed 1; of these two the one with the
higher mean of the oracle's reward (facts) or the judge's score (stories) over both seeds is taken.
Measured on fewer held-out prompts than the studies are. Parents are made once per seed; each seed
is one `alignzoo run`, whose finished stages are reused when a grid is extended or a run was
interrupted. Writes results/distillation_controls_rates.{json,md} beside this file, anew after every
seed, with what earlier calls found of other recipes.
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
from itertools import product
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
BASE = Path(__file__).parent / "results" / "distillation_controls_rates"
Setting = Mapping[str, float]  # lr, and options of the method
FIRST, *LATER = 0, 1  # tuning seeds
KEPT = 2  # settings of a row that the later seeds try
PROMPTS = {"facts": 150, "stories": 100}  # to measure on
JUDGED = {"facts": "true_reward", "stories": "score"}  # benchmark -> what decides
SHOWN = {
    "facts": ("win_rate", "length", "kl(sft)", "malformed"),
    "stories": ("win_rate", "length", "kl(initial)", "distinct_2", "rep"),
}


def rates(*lr: float, **options: Sequence[float]) -> list[Setting]:
    """Every combination."""
    names = ("lr", *options)
    return [dict(zip(names, x, strict=True)) for x in product(lr, *options.values())]


GRIDS: Mapping[str, Mapping[str, list[Setting]]] = {  # recipe -> row -> what is tried
    "distillation_controls": {  # dpo-strong: benchmarks/table1_rates.py
        "aligndistil": rates(1e-3, r=(2.0, 4.0, 8.0)) + rates(2e-3, r=(2.0, 4.0)),
        "opd": rates(5e-4, 1e-3, 2e-3),
        "opd-constant": rates(1e-3, 2e-3, beta=(0.08, 0.333333)) + rates(4e-3, beta=(0.08,)),
        "delta": rates(3e-5, 1e-4, 3e-4, 1e-3),
        "negative": rates(1e-4, 3e-4, 1e-3, below=(0.05, 0.2)) + rates(3e-4, below=(0.02,)),
    },
    "studies/controls_stories": {
        "dpo-strong": rates(3e-4, 5e-4, 1e-3),
        "aligndistil": rates(5e-4, 1e-3, 2e-3, r=(1.0,)) + rates(1e-3, r=(0.5, 2.0, 4.0)),
        "opd": rates(5e-4, 1e-3),
        "opd-constant": rates(1e-3, 2e-3, beta=(0.333333,)) + rates(1e-3, beta=(0.08,)),
        "delta": rates(3e-5, 1e-4, 3e-4, 1e-3),
        "negative": rates(3e-5, 1e-4, below=(0.2, 0.5))
        + rates(1e-4, below=(0.05,))
        + rates(3e-4, below=(0.02, 0.05)),
    },
    "studies/table2_stories": {
        "ppo": rates(1e-4, 3e-4, 1e-3),
        "aligndistil-vanilla": rates(1e-3, r=(2.0, 4.0)),
    },
    "studies/table1_stories": {  # aligndistil-on and dpo-strong: as in controls_stories
        "kto": rates(5e-4, 1e-3, 2e-3),
        "simpo": rates(2e-4, 5e-4, 1e-3),
        "tdpo2": rates(5e-4, 1e-3, 2e-3),
        "rto": rates(1e-4, 3e-4),
        "aligndistil-off": rates(1e-3, 2e-3),
    },
    "studies/figure2_stories": {
        "bandit": rates(1e-4, 3e-4, 1e-3),
        "reinforce": rates(3e-4, 1e-3),
        "aligndistil": rates(3e-4, 1e-3),
    },
}


@dataclass(frozen=True)
class Trial:
    """One row at one setting on one seed."""

    recipe: str
    benchmark: str
    row: str
    setting: Setting
    seed: int
    columns: Mapping[str, float]  # column -> mean over the prompts

    @property
    def worth(self) -> float:
        """What decides; a diverged policy is the worst of all."""
        value = self.columns[JUDGED[self.benchmark]]
        return value if math.isfinite(value) else -math.inf


# --- running ---------------------------------------------------------------------------------


def trial_name(row: str, setting: Setting) -> str:
    """E.g. negative-lr0.0003-below0.2."""
    return "-".join([row, *(f"{name}{value:g}" for name, value in setting.items())])


def variant(stage: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """A stage at another setting."""
    options = {name: value for name, value in setting.items() if name != "lr"}
    changed = {**stage, "name": trial_name(stage["name"], setting)}
    changed["train"] = {**stage["train"], "lr": setting["lr"]}
    return {**changed, "with": {**stage.get("with", {}), **options}} if options else changed


def recipe(name: str, seed: int, grid: Mapping[str, Sequence[Setting]]) -> dict[str, Any]:
    """The recipe file with every row of the grid once per setting, and no other row but `dpo`."""
    content = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
    evaluation = content["evaluate"][-1]
    stages = {stage["name"]: stage for stage in content["stages"]}
    rows = {*evaluation["models"], *grid} - {"dpo"}
    tried = [(row, s) for row, settings in grid.items() for s in settings]
    models = [evaluation["baseline"], "dpo", *(trial_name(row, s) for row, s in tried)]
    measured = {
        **evaluation,
        "with": {"size": PROMPTS[evaluation["benchmark"]]},
        "models": list(dict.fromkeys(models)),
        "kl_to": [evaluation["baseline"]],
    }
    parents = [stage for row, stage in stages.items() if row not in rows]
    tried_stages = [variant(stages[row], s) for row, s in tried]
    return {**content, "seed": seed, "stages": [*parents, *tried_stages], "evaluate": [measured]}


def grid_of(name: str, seed: int, found: Sequence[Trial]) -> dict[str, list[Setting]]:
    """What a seed tries: the first all, the later ones the best of the first."""
    if seed == FIRST:
        return {row: list(settings) for row, settings in GRIDS[name].items()}
    grid = {}
    for row in GRIDS[name]:
        mine = [t for t in found if (t.recipe, t.row, t.seed) == (name, row, FIRST)]
        ranked = sorted(mine, key=lambda trial: trial.worth, reverse=True)
        grid[row] = [trial.setting for trial in ranked[:KEPT]]
    return grid


def run(
    name: str, seed: int, grid: Mapping[str, Sequence[Setting]], output: Path
) -> Iterator[Trial]:
    """All trials of a recipe on a seed."""
    content = recipe(name, seed, grid)
    text = yaml.safe_dump(content, sort_keys=False)
    title = f"{Path(name).name}-seed{seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    output.mkdir(parents=True, exist_ok=True)
    file, folder = output / f"{title}.yaml", output / title
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "alignzoo", "run", str(file), "--output", str(folder)]
    if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit(status)
    lines = (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    found = {row["model"]: row["columns"] for row in map(json.loads, lines)}
    benchmark = content["evaluate"][0]["benchmark"]
    kept = (JUDGED[benchmark], *SHOWN[benchmark])
    for row, settings in grid.items():
        for setting in settings:
            cells = found[trial_name(row, setting)]
            columns = {column: cells[column]["mean"] for column in kept}
            yield Trial(name, benchmark, row, setting, seed, columns)


# --- the report ------------------------------------------------------------------------------


def best(trials: Sequence[Trial]) -> Setting:
    """The setting with the highest mean of what decides, over the seeds that all settings have."""
    seeds = {trial.seed for trial in trials}
    tried = list(dict.fromkeys(tuple(trial.setting.items()) for trial in trials))
    of = {s: [t for t in trials if tuple(t.setting.items()) == s] for s in tried}
    whole = [s for s in tried if {t.seed for t in of[s]} == seeds]
    return dict(max(whole, key=lambda s: statistics.fmean(t.worth for t in of[s])))


def section(name: str, trials: Sequence[Trial]) -> list[str]:
    """The table of a recipe."""
    benchmark = trials[0].benchmark
    seeds = ", ".join(map(str, sorted({trial.seed for trial in trials})))
    decides, shown = JUDGED[benchmark], SHOWN[benchmark]
    head = ["row", "setting", f"{decides} by seed", "mean", *shown]
    lines = ["", f"## recipes/{name}.yaml, seeds {seeds}", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in dict.fromkeys(trial.row for trial in trials):
        mine = [trial for trial in trials if trial.row == row]
        taken = best(mine)
        for setting in {str(t.setting): t.setting for t in mine}.values():
            lines.append(line(setting, [t for t in mine if t.setting == setting], taken))
    return lines


def line(setting: Setting, trials: Sequence[Trial], taken: Setting) -> str:
    """One row at one setting."""
    text = " ".join(f"{name} {value:g}" for name, value in setting.items())
    worth = [trial.worth for trial in trials]
    means = [
        statistics.fmean(t.columns[name] for t in trials) for name in SHOWN[trials[0].benchmark]
    ]
    cells = [
        trials[0].row,
        f"**{text}**" if setting == taken else text,
        " / ".join(f"{x:.2f}" for x in worth),
        f"{statistics.fmean(worth):.3f}",
        *(f"{x:.3f}" for x in means),
    ]
    return "| " + " | ".join(cells) + " |"


def write(found: Sequence[Trial]) -> None:
    """Both files, over all recipes."""
    names = [name for name in GRIDS if any(trial.recipe == name for trial in found)]
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"],
        check=False,
        capture_output=True,
        text=True,
    )
    lines = [
        "# Settings of the controls and of the stories studies",
        "",
        "Command: `python benchmarks/distillation_controls.py`, commit "
        f"{done.stdout.strip() or 'unknown'}, {os.cpu_count()} cores ({platform.machine()}), "
        "one thread.",
        "",
        f"Seed {FIRST} tries the whole grid, the others the {KEPT} best of it; the one in bold has "
        "the highest mean",
        "of those that all seeds have. The studies measure on other seeds. A row without a grid "
        "has its rate from another table.",
    ]
    for name in names:
        lines += section(name, [trial for trial in found if trial.recipe == name])
    BASE.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    content = {"trials": [asdict(trial) for trial in found]}
    BASE.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def known() -> list[Trial]:
    """What earlier calls found."""
    if not BASE.with_suffix(".json").exists():
        return []
    content = json.loads(BASE.with_suffix(".json").read_text(encoding="utf-8"))
    return [Trial(**trial) for trial in content["trials"]]


def main() -> None:
    """Run what is asked for; the report is written after every seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(GRIDS), default=list(GRIDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[FIRST, *LATER])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "distillation_controls")
    given = parser.parse_args()
    found = known()
    for name, seed in product(given.only, given.seeds):
        new = list(run(name, seed, grid_of(name, seed, found), given.output))
        found = [t for t in found if (t.recipe, t.seed) != (name, seed)] + new
        write(found)
    print(BASE.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
